"""The formats of a completion: views of its frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sseflask.completions.dialects import RESPONSES
from sseflask.completions.formats.ui import HEADERS, Messages, ui_failure
from sseflask.completions.formats.views import (
    Chunks,
    Events,
    Texts,
    View,
    chat_error,
    response_error,
)
from sseflask.errors import Failure
from sseflask.event import Event
from sseflask.transport.failures import failure_event

__all__ = ["FORMATS", "Format", "View"]


@dataclass(frozen=True)
class Format:
    """One format of a completion.

    Args:
        view: makes a view of a run from its id and the name of its dialect.
        stateless: a view may begin with the last frame whose event a client has; otherwise it
            needs all frames.
        resumable: a client can resume after any event; otherwise the stream begins anew.
        headers: the response's further headers.
        failure_events: by the name of a dialect, or ``""`` for all others, a function that makes
            the event of a failure of the connection alone.
    """

    view: Callable[[str, str], View]
    stateless: bool = False
    resumable: bool = True
    headers: Mapping[str, str] = field(default_factory=dict)
    failure_events: Mapping[str, Callable[[Failure], Event]] = field(default_factory=dict)

    def failure_event(self, dialect: str) -> Callable[[Failure], Event]:
        """Makes the event of a failure of the connection to a run of this dialect."""
        events = self.failure_events
        return events.get(dialect) or events.get("") or failure_event


FORMATS: dict[str, Format] = {
    "chunks": Format(
        Chunks, stateless=True, failure_events={"": chat_error, RESPONSES: response_error}
    ),
    "text": Format(Texts),
    "events": Format(Events),
    "ui": Format(Messages, resumable=False, headers=HEADERS, failure_events={"": ui_failure}),
}
