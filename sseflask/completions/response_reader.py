"""Reads one response of an upstream: its first bytes say what it is, whatever its label says."""

from __future__ import annotations

import contextlib
import functools
import logging
import re
import threading
from collections.abc import Generator, Iterable, Iterator
from itertools import chain
from typing import Any

import httpx2

from sseflask.completions.completion_outcome import CompletionOutcome
from sseflask.completions.dialects import RESPONSES
from sseflask.completions.documents import (
    document_of,
    error_of_choices,
    is_completion,
    stream_of,
    without_secrets,
)
from sseflask.completions.error_messages import is_error, text_of, value_of
from sseflask.completions.frame_splitter import FrameSplitter, FrameTooLong, is_json, message
from sseflask.completions.stream_parser import ChatParser, End, ResponseParser, StreamParser
from sseflask.completions.upstream_errors import invalid, reported, timed_out, while_reading
from sseflask.completions.upstream_transport import ReadDeadline, raw_body
from sseflask.errors import Failure
from sseflask.runs.outcome import ReportedFailure

log = logging.getLogger(__name__)

#: Bytes of the longest document. It is held in memory, and may have pictures in it.
_MAX_DOCUMENT = 64 * 1024 * 1024
#: Bytes of a large document, and how many of them may be in memory at the same time.
_LARGE, _MAX_LARGE = 8 * 1024 * 1024, 16
#: Bytes of a document that is parsed. As objects they may take twenty times as much.
_MAX_PARSED = 8 * 1024 * 1024
#: Bytes that may come without an event: comments, blank lines. Each comment counts for some bytes
#: more, as a tiny one costs as much time as a long one.
_MAX_EMPTY, _EMPTY_FRAME = 8 * 1024 * 1024, 64
#: Bytes of a page that are read: its title comes early.
_PAGE = 8_192
#: Seconds and bytes for the rest of a response behind the completion's end. It is read so that the
#: connection can be used again.
_REST_SECONDS, _REST_BYTES = 0.05, 65_536
#: Found in a chunk with content or a usage, which is more than a sign of life.
_HAS_CONTENT = re.compile(rb'"(?:choices|usage)"\s*:\s*[\[{]\s*[{"]')
#: What may stand before the first byte that counts: spaces, and a byte order mark.
_BLANK = b" \t\r\n\xef\xbb\xbf"
_BEGINS_STREAM = (b":", b"data", b"event", b"id", b"retry", b"error:")


class ResponseReader:
    """Reads one response. Not thread-safe.

    Args:
        secrets: masked in what the upstream says.
        seconds: how long it may be silent, and a document may take once it has begun.
        dialect: the name of the API of the request; empty for a document of any kind.

    Attributes:
        started: something of the completion has been given.
    """

    def __init__(
        self,
        secrets: tuple[str, ...],
        seconds: float,
        dialect: str = "",
        choices: int = 1,
        max_document: int = _MAX_DOCUMENT,
        max_event: int = _MAX_DOCUMENT,
    ) -> None:
        self.started = False
        self._secrets = secrets
        self._seconds = seconds
        self._dialect = dialect
        self._parser: StreamParser = (
            ResponseParser(secrets) if dialect == RESPONSES else ChatParser(secrets, choices)
        )
        self._max_document = max_document
        self._max_event = max_event
        self._memory = contextlib.ExitStack()

    def close(self) -> None:
        """Note that the document is no longer in memory. Needed after `document` only."""
        self._memory.close()

    def stream(
        self, response: httpx2.Response
    ) -> Generator[list[bytes] | CompletionOutcome, None, None]:
        """Read a stream, also one that comes as a document. See `Upstream.stream`."""
        with contextlib.closing(raw_body(response)) as pieces:
            with self._first_piece(response, pieces) as (first, deadline):
                if _is_document(first):
                    outcome = yield from self._frames_of_document(response, chain((first,), pieces))
                else:
                    outcome = yield from self._frames(response, first, pieces, deadline)
            yield outcome
            _read_rest(response, pieces)

    def document(self, response: httpx2.Response) -> bytes:
        """Read a document, or a stream as a document. A JSON object in UTF-8 stays as it came."""
        with (
            contextlib.closing(raw_body(response)) as pieces,
            self._first_piece(response, pieces) as (first, deadline),
        ):
            if _is_document(first):
                return self._document(response, self._few_large(chain((first,), pieces)))
            if not first:
                raise invalid("it is empty", "", self._secrets)
            if not self._dialect:
                raise self._page(response, chain((first,), pieces))
            frames: list[bytes] = []
            stream = self._frames(response, first, self._few_large(pieces), deadline)
            size = 0
            while True:
                try:
                    read = next(stream)
                except StopIteration as stop:
                    outcome: CompletionOutcome = stop.value
                    if outcome.failure is not None:
                        raise outcome.failure from None
                    return document_of(self._dialect, frames, outcome)
                frames += read
                size += sum(map(len, read))
                if size > self._max_document:
                    raise invalid("it is too long", "", self._secrets)

    @contextlib.contextmanager
    def _first_piece(
        self, response: httpx2.Response, pieces: Iterable[bytes]
    ) -> Iterator[tuple[bytes, ReadDeadline]]:
        """The first piece, from its first byte that is no space: spaces keep some connections open.

        Errors of the connection are raised as failures.
        """
        deadline = ReadDeadline(response, self._seconds)
        try:
            with deadline:
                first = self._skip_blank(pieces, deadline)
                if first.startswith(b"<"):
                    raise self._page(response, chain((first,), pieces))
                yield first, deadline
        except (httpx2.HTTPError, Failure) as error:
            if deadline.passed:
                raise timed_out() from error
            if isinstance(error, Failure):
                raise
            raise while_reading(error) from error

    def _skip_blank(self, pieces: Iterable[bytes], deadline: ReadDeadline) -> bytes:
        size = 0
        for piece in pieces:
            if rest := piece.lstrip(_BLANK):
                return rest
            size += len(piece)
            if size > _MAX_EMPTY:
                break
            if self._dialect:
                deadline.extend()
        return b""

    def _frames(
        self,
        response: httpx2.Response,
        first: bytes,
        pieces: Iterable[bytes],
        deadline: ReadDeadline,
    ) -> Generator[list[bytes], None, CompletionOutcome]:
        parser, splitter = self._parser, FrameSplitter(self._max_event)
        empty = 0
        end: End | None
        try:
            for piece in chain((first,), pieces):
                deadline.paused = True
                relayed: list[bytes] = []
                if frames := splitter.feed(piece):
                    relayed, end = parser.feed(frames)
                    if relayed:
                        self.started = True
                        empty = 0
                        yield relayed
                    if end is not None:
                        return _outcome(end)
                if not relayed:
                    empty += len(piece) + _EMPTY_FRAME * len(frames)
                    if empty > _MAX_EMPTY + len(splitter.rest):
                        raise invalid("nothing comes but comments", "", self._secrets)
                if parser.idle_limit is not None:
                    deadline.shorten(parser.idle_limit)
                    # Comments do not extend the deadline, nor do empty events in their place.
                    if not any(map(_HAS_CONTENT.search, relayed)):
                        deadline.paused = False
                        continue
                deadline.extend()
        except FrameTooLong:
            raise invalid("an event of it is too long", "", self._secrets) from None
        except httpx2.HTTPError:
            # Nothing is missing if every choice has its finish reason.
            end = parser.finish(b"")
            if deadline.passed or not splitter.rest:
                if isinstance(end, CompletionOutcome):
                    return end
                if isinstance(end, ReportedFailure):
                    return CompletionOutcome.failed(end)
            raise
        if not self.started and first and not first.startswith(_BEGINS_STREAM):
            raise self._page(response, (first,))
        rest = splitter.rest
        if isinstance(message(rest)[1], dict):
            # The last event lacks only its blank line: a cut one would be no JSON.
            relayed, end = parser.feed([rest.rstrip(b"\r\n") + b"\n\n"])
            if relayed:
                self.started = True
                yield relayed
            if end is not None:
                return _outcome(end)
            rest = b""
        return _outcome(parser.finish(rest))

    def _frames_of_document(
        self, response: httpx2.Response, pieces: Iterable[bytes]
    ) -> Generator[list[bytes], None, CompletionOutcome]:
        text = _text(response, self._read(pieces, min(self._max_document, _MAX_PARSED)))
        value = self._checked(text)
        if not is_completion(self._dialect, value):
            label = f"it is {_label(response)}, neither an event stream nor an answer"
            raise invalid(label, text, self._secrets)
        frames, end = self._parser.feed(stream_of(self._dialect, value))
        if frames:
            self.started = True
            yield frames
        return _outcome(end or self._parser.finish(b""))

    def _document(self, response: httpx2.Response, pieces: Iterable[bytes]) -> bytes:
        content = self._read(pieces, self._max_document)
        if len(content) > _MAX_PARSED and content[:1] + content.rstrip()[-1:] in (b"{}", b"[]"):
            return content
        text = _text(response, content)
        value = self._checked(text)
        if ("NaN" in text or "Infinity" in text) and not is_json(text.encode(errors="replace")):
            reason = "it is not JSON, which has neither NaN nor Infinity"
            raise invalid(reason, text, self._secrets)
        if isinstance(value, dict) and (safe := without_secrets(value, self._secrets)) is not None:
            return safe
        # A list of models may be a bare one.
        if not isinstance(value, dict if self._dialect else (dict, list)):
            raise invalid("it is not a JSON object", text, self._secrets)
        return content if content[:1] in b"{[" and _is_utf_8(content) else text.encode()

    def _checked(self, text: str) -> Any:
        """The JSON value of a document; ``None`` if it is none. An error in it is raised."""
        value = value_of(text)
        if not is_completion(self._dialect, value) and is_error(value):
            raise reported(value, self._secrets)
        if (error := error_of_choices(value)) is not None:
            raise reported(error, self._secrets)
        return value

    def _few_large(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Wait, when a document turns out to be large, until few others are in memory."""
        size = 0
        for piece in pieces:
            yield piece
            if size <= _LARGE < (size := size + len(piece)):
                self._memory.enter_context(_large_documents())

    def _read(self, pieces: Iterable[bytes], limit: int) -> bytes:
        content = bytearray()
        for piece in pieces:
            content += piece
            if len(content) > limit:
                raise invalid("it is too long", "", self._secrets)
        return bytes(content)

    def _page(self, response: httpx2.Response, pieces: Iterable[bytes]) -> Failure:
        content = b""
        for piece in pieces:
            content += piece
            if len(content) > _PAGE:
                break
        expected = "an event stream" if self._dialect else "JSON"
        label = f"it is {_label(response)}, not {expected}"
        return invalid(label, _text(response, content), self._secrets)


@functools.cache
def _large_documents() -> threading.BoundedSemaphore:
    # Made at the first use: under gevent it must be gevent's, which a worker has from its start.
    return threading.BoundedSemaphore(_MAX_LARGE)


def _is_document(first: bytes) -> bool:
    return first.startswith((b"{", b"[", b'"'))


def _outcome(end: End) -> CompletionOutcome:
    if isinstance(end, Failure):
        raise end
    return end


def _text(response: httpx2.Response, content: bytes) -> str:
    return text_of(content, response.headers.get("Content-Type", ""))


def _is_utf_8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _label(response: httpx2.Response) -> str:
    """The type and coding of a body, as its headers name them."""
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()[:60]
    coding = response.headers.get("Content-Encoding", "identity")[:60]
    label = kind if kind.isascii() and kind.isprintable() and kind else "of no type"
    return label if coding == "identity" else f"{label}, compressed ({coding})"


def _read_rest(response: httpx2.Response, pieces: Iterable[bytes]) -> None:
    """Read a response to its end, which usually is there already."""
    size = 0
    try:
        with ReadDeadline(response, _REST_SECONDS):
            for piece in pieces:
                size += len(piece)
                if size > _REST_BYTES:
                    return
    except httpx2.HTTPError as error:
        log.debug("the connection can't be used again: %s", type(error).__name__)
