"""The formats of a completion: each is a view of the stored frames."""

from __future__ import annotations

from typing import Literal, TypeAlias

from sseflask.completions.dialects import RESPONSES
from sseflask.completions.formats.ui import HEADERS, Messages, ui_failure
from sseflask.completions.formats.views import (
    Chunks,
    Document,
    Events,
    Texts,
    chat_error,
    response_error,
)
from sseflask.runs.format_api import Format

#: The names in `FORMATS`, for parameters. Written twice, as a type can't be computed; a test
#: compares them.
FormatName: TypeAlias = Literal["chunks", "text", "events", "ui"]

FORMATS: dict[str, Format] = {
    "chunks": Format(
        Chunks, stateless=True, failure_events={"": chat_error, RESPONSES: response_error}
    ),
    "text": Format(Texts),
    "events": Format(Events),
    "ui": Format(
        Messages,
        resumable=False,
        headers=HEADERS,
        failure_events={"": ui_failure},
    ),
}
#: Not streamed: for a client that waits for the whole document.
DOCUMENT = Format(Document, resumable=False, document=True)
