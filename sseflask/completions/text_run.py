"""Runs of text from anywhere, as the chunks of a chat completion."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable
from typing import Any

from sseflask.completions.completion_outcome import CompletionOutcome, with_usage_notes
from sseflask.completions.dialects import CHAT
from sseflask.completions.formats.views import data_of
from sseflask.errors import EventError
from sseflask.items import check_iterable
from sseflask.runs.item_run import ItemRun, encoded
from sseflask.runs.outcome import Generated
from sseflask.runs.writer import Writer


class TextRun(ItemRun):
    """Pieces of text, of which each becomes a chunk.

    Args:
        texts: an iterable of them.
        model: what the chunks call the model.

    Raises:
        TypeError: this is no synchronous iterable.
    """

    label = CHAT

    def __init__(self, texts: Iterable[str], model: str) -> None:
        check_iterable(texts)
        super().__init__(texts)
        self._model = model

    def generate(self, writer: Writer) -> Generated:
        return with_usage_notes(super().generate(writer))

    def _frames(self, writer: Writer) -> Generator[list[bytes], None, Any]:
        encoder = TextEncoder(writer.run.id, self._model)
        assert isinstance(self.items, Iterable)
        value = yield from encoded(self.items, encoder)
        yield [encoder.last()]
        return value

    def _outcome(self, value: Any) -> CompletionOutcome:  # noqa: ARG002  # a completion has none
        return CompletionOutcome("finished", "stop")


class TextEncoder:
    """Turns the text of one run into the frames of Chat Completions. No I/O."""

    def __init__(self, run: str, model: str) -> None:
        self._head = {
            "id": f"chatcmpl-{run}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
        }
        self._delta = {"role": "assistant"}

    def frames(self, item: object) -> list[bytes]:
        """The frames of a piece of text: none if it is empty.

        Raises:
            EventError: it is no text.
        """
        if not isinstance(item, str):
            raise EventError(
                f"text_chunks takes pieces of text, not a {type(item).__name__}: give its text, as "
                "in text_chunks(chunk.text for chunk in chunks)"
            )
        if not item:
            return []
        delta, self._delta = {**self._delta, "content": item}, {}
        return [self._frame(delta, None)]

    def last(self) -> bytes:
        """The frame that says that the text is complete."""
        return self._frame(self._delta, "stop")

    def _frame(self, delta: dict[str, str], reason: str | None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return b"data: %b\n\n" % data_of({**self._head, "choices": [choice]}).encode()
