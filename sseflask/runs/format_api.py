"""How the stored frames of a run become bytes for a viewer: a protocol. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from sseflask.errors import Failure
from sseflask.event import Event
from sseflask.transport.failures import failure_event


def id_of(run: str, number: int) -> str:
    """The id of the last event of a frame."""
    return f"{run}.{number}"


class View(Protocol):
    """Turns the frames of one run into events. Not thread-safe, never blocks.

    The bytes are whole events of an event stream: heartbeats and ``retry:`` lines are put between
    them, and they are counted by their blank lines.

    The same frames always give the same bytes: a new view goes on where another one ended.
    """

    def take(self, number: int, frame: bytes, /) -> bytes:
        """The events of one frame, perhaps none; the last of them has the id."""

    def end(self, number: int, outcome: Any, /) -> bytes:
        """What is left, and the terminal event, which has the id; its number is the next one.

        The outcome is of the kind that the view's runs have. If a `Failure` is raised, the response
        is to be this error.
        """


@dataclass(frozen=True)
class Format:
    """A form in which a run can be viewed.

    Args:
        view: makes a view of a run, given its id and its label.
        stateless: a view may begin with the last frame whose event a client has; otherwise it has
            to be given all of them.
        resumable: a client can go on after any event; otherwise only from the start.
        failure_events: by a run's label, or ``""`` for all others: makes the event of a failure of
            the connection alone, not of the run.
        document: it is one JSON document, sent when the run has ended.
    """

    view: Callable[[str, str], View]
    stateless: bool = False
    resumable: bool = True
    document: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    failure_events: Mapping[str, Callable[[Failure], Event]] = field(default_factory=dict)

    def failure_event(self, label: str) -> Callable[[Failure], Event]:
        """Makes the event of a failure of the connection to a run with this label."""
        events = self.failure_events
        return events.get(label) or events.get("") or failure_event
