"""Kinds of runs, by the label that each run is stored with: what its frames mean."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

from sseflask.runs.format_api import Format
from sseflask.runs.items import ITEM_FORMAT, ITEMS, ItemOutcome
from sseflask.runs.outcome import Outcome
from sseflask.store.run_api import Run

Completing: TypeAlias = Callable[[Mapping[str, str]], dict[str, str]]
"""Completes the headers of a response, or of a failure, see `Viewer`."""


def _complete_nothing(late: Mapping[str, str]) -> Completing:  # noqa: ARG001  # there are none
    return dict


class Kind(NamedTuple):
    """What runs with the same label have in common.

    Args:
        formats: by their names; the first is the one by default.
        outcome_of: reads how such a run has ended.
        completing: given headers that are complete with the first frame, gives what adds them to
            those of the current request's response.
    """

    formats: Mapping[str, Format]
    outcome_of: Callable[[Run], Outcome]
    completing: Callable[[Mapping[str, str]], Completing] = _complete_nothing


_ITEMS = Kind({"items": ITEM_FORMAT}, ItemOutcome.of)

#: Where other kinds are: imported with the first such run, as they need more than Flask. Each
#: module has ``KINDS``, by their labels.
_OTHERS = "sseflask.completions.kinds"

#: Formats whose clients ask whether there is a run at all, and take 204 for no.
ASKING_FORMATS = frozenset({"ui"})


def kind_of(label: str) -> Kind:
    """The kind of the runs with a label."""
    if label == ITEMS:
        return _ITEMS
    kinds: Mapping[str, Kind] = importlib.import_module(_OTHERS).KINDS
    return kinds[label]


def outcome_of(run: Run) -> Outcome:
    """How a run has ended, whatever its kind."""
    return kind_of(run.label).outcome_of(run)
