"""Percentiles of times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

Number = TypeVar("Number", int, float)


def percentile(ordered: Sequence[Number], percent: float) -> Number:
    """Give the smallest of these ascending values that `percent` of them do not exceed."""
    return ordered[max(math.ceil(len(ordered) * percent / 100) - 1, 0)]
