"""What is known of a run, as a value for code."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from sseflask.runs.format_api import View, id_of
from sseflask.runs.items import ItemOutcome
from sseflask.runs.outcome import Outcome
from sseflask.store.catch_up import Frame
from sseflask.store.run_api import Run
from sseflask.wire import Decoder

__all__ = ["RunEvent", "RunResult", "RunState"]

RunState: TypeAlias = Literal[
    "running", "finished", "failed", "stopped", "cancelled", "interrupted"
]


@dataclass(frozen=True, slots=True)
class RunEvent:
    """An event of a run.

    Args:
        id: as clients get it.
        event: its type, ``message`` if it has none.
        data: its data; text, as clients get it.
    """

    id: str
    event: str
    data: str

    def json(self) -> Any:
        """The data as the value that it is in JSON; ValueError if it is no JSON."""
        return json.loads(self.data)


@dataclass(frozen=True, slots=True)
class RunResult:
    """What is known of a run.

    Args:
        id: the run's id.
        state: ``running``; or how it has ended: ``finished``, ``failed``, ``stopped`` (by a
            client), ``cancelled`` (without viewers), or ``interrupted`` (its process has died, or
            was shut down).
        events: what there is so far, without the last event.
        value: what the generator of a finished run has returned.
        error: of a failed or interrupted run, OpenAI's error object as clients get it.
    """

    id: str
    state: RunState
    events: list[RunEvent]
    value: Any = None
    error: dict[str, Any] | None = None


def run_state(outcome: Outcome | None) -> RunState:
    """The state of a run that has ended so, or of one that goes on."""
    if outcome is None:
        return "running"
    if outcome.failure is not None and outcome.failure.code == "interrupted":
        return "interrupted"
    return outcome.kind


def events_of(run: Run, view: View, frames: Iterable[Frame]) -> list[RunEvent]:
    """The events of a run's frames."""
    decoder = Decoder()
    return [
        RunEvent(id_of(run.id, number), event.event, event.data)
        for number, frame in frames
        for event in decoder.feed(view.take(number, frame))
    ]


def result_of(run: Run, outcome: Outcome | None, events: list[RunEvent]) -> RunResult:
    """The result of a run with these events."""
    value: Any = None
    error: dict[str, Any] | None = None
    if outcome is not None:
        failure = outcome.failure
        error = None if failure is None else failure.body()["error"]
        result = outcome.result if isinstance(outcome, ItemOutcome) else None
        value = None if result is None else json.loads(result)
    return RunResult(run.id, run_state(outcome), events, value, error)
