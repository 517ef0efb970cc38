"""Arithmetic on samples: values, ratios within rounds, medians with their spread.

Pure functions over samples in the order of the rounds; a sample with faults counts as absent.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol


class SampleLike(Protocol):
    """What one round on one server gave, whoever holds it."""

    @property
    def values(self) -> Mapping[str, float]: ...

    @property
    def faults(self) -> Sequence[str]: ...

    @property
    def remarks(self) -> Sequence[str]: ...


class Spread(NamedTuple):
    """The median of some values, the least and the most of them."""

    median: float
    least: float
    most: float


def values(samples: Iterable[SampleLike], key: str) -> list[float]:
    """Give a metric's values, one for each round that has it and no faults."""
    return [value for sample in samples if (value := _value(sample, key)) is not None]


def ratios(
    samples: Iterable[SampleLike], reference_samples: Iterable[SampleLike], key: str
) -> list[float]:
    """Give a metric's ratios to the reference, each taken within one round.

    A round counts where both have the metric and no faults, and the reference's is not zero.
    """
    found = []
    for sample, base in zip(samples, reference_samples, strict=False):
        value, divisor = _value(sample, key), _value(base, key)
        if value is not None and divisor:
            found.append(value / divisor)
    return found


def _value(sample: SampleLike, key: str) -> float | None:
    return None if sample.faults else sample.values.get(key)


def spread(values: Sequence[float]) -> Spread:
    """Give median, least and most; ValueError where there are no values."""
    return Spread(statistics.median(values), min(values), max(values))


def faults(samples: Iterable[SampleLike]) -> list[str]:
    """Give each fault once, in the order of the rounds."""
    return list(dict.fromkeys(fault for sample in samples for fault in sample.faults))


def ratio_text(ratio: float) -> str:
    """Print a ratio with two decimals, fewer where it is large, more where it is tiny."""
    if ratio >= 100:
        return f"{ratio:,.0f}"
    if ratio >= 9.995:
        return f"{ratio:.1f}"
    if 0 < ratio < 0.0995:
        return f"{ratio:.{1 - math.floor(math.log10(ratio))}f}"
    return f"{ratio:.2f}"
