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

from sseflask.completions import dialects, failures
from sseflask.completions.assembly import is_answer, stream_of
from sseflask.completions.error_messages import text_of, value_of
from sseflask.completions.frame_splitter import FrameSplitter, FrameTooLong, is_json, message
from sseflask.completions.malformed_frames import error_of_choices, is_error, without_secrets
from sseflask.completions.outcome import Outcome
from sseflask.completions.read_timeout import SilenceLimit
from sseflask.completions.transport import raw_body
from sseflask.completions.upstream_errors import reported, unfit
from sseflask.errors import Failure

__all__ = ["ResponseReader"]

log = logging.getLogger(__name__)

#: Longest answer in one piece: it is held in memory, and may have pictures in it.
_MAX_ANSWER = 64 * 1024 * 1024
#: Bytes of a large one, and how many of them may be in memory at the same time.
_LARGE, _MOST_LARGE = 8 * 1024 * 1024, 16
#: Bytes of a document that are looked into: as objects they may take twenty times as much.
_MAX_PARSED = 8 * 1024 * 1024
#: Bytes that may come without an event among them: comments, blank lines.
_MAX_NOTHING = 8 * 1024 * 1024
#: What each comment counts for beside its bytes: a tiny one costs as much as a long one.
_COST = 64
#: Bytes of a page that are read: its title comes early.
_PAGE = 8_192
#: After the answer's end the rest of the response is read, so that its connection can be used
#: again, but not for longer than this and not more than this.
_REST_SECONDS = 0.05
_REST_BYTES = 65_536
#: In a chunk that is more than a sign of life.
_SAYS_SOMETHING = re.compile(rb'"(?:choices|usage)"\s*:\s*[\[{]\s*[{"]')
#: What may stand before the first byte that counts: spaces, and a byte order mark.
_BLANK = b" \t\r\n\xef\xbb\xbf"


class ResponseReader:
    """One reading of one response. Not thread-safe.

    Args:
        secrets: values to mask in what the upstream says.
        seconds: how long it may be silent, and a document may take once it has begun.
        dialect: the name of the API that was asked; none for a document of any kind.
        choices: how many answers at once were asked for.
        most: bytes that a document may have.
        most_event: bytes that an event of a stream may have.
    """

    def __init__(
        self,
        secrets: tuple[str, ...],
        seconds: float,
        dialect: str = "",
        choices: int = 1,
        most: int = _MAX_ANSWER,
        most_event: int = _MAX_ANSWER,
    ) -> None:
        self._secrets = secrets
        self._seconds = seconds
        self._dialect = dialect
        self._answer = dialects.answer(dialect, secrets, choices)
        self._most = most
        self._most_event = most_event

    @property
    def begun(self) -> bool:
        """Whether anything has been relayed."""
        return self._answer.begun

    def stream(self, response: httpx2.Response) -> Generator[list[bytes] | Outcome, None, None]:
        """See `Upstream.stream`."""
        with contextlib.closing(raw_body(response)) as pieces:
            silence = SilenceLimit(response, self._seconds)
            with _failing(silence), silence:
                first = self._first(pieces, silence)
                if _is_json(first):
                    frames, came = self._unfold(response, chain((first,), pieces))
                    if frames:
                        self._answer.begun = True
                        yield frames
                    end = _finished(came)
                elif _is_page(first):
                    raise self._page(response, chain((first,), pieces))
                else:
                    end = yield from self._frames(response, first, pieces, silence)
            yield end
            _read_rest(response, pieces)

    def whole(
        self, response: httpx2.Response, held: contextlib.ExitStack
    ) -> bytes | tuple[list[bytes], Outcome]:
        """Read an answer that was asked for in one piece.

        Args:
            response: with its headers.
            held: is closed by the caller once the answer is out of memory.

        Returns:
            the document, as it came if it was UTF-8; or the frames and the end of a stream.

        Raises:
            Failure: it is neither, or it tells an error.
        """
        with contextlib.closing(raw_body(response)) as pieces:
            silence = SilenceLimit(response, self._seconds)
            with _failing(silence), silence:
                first = self._first(pieces, silence)
                if _is_json(first):
                    return self._document(response, _paced(chain((first,), pieces), held))
                if not first:
                    raise unfit("it is empty", "", self._secrets)
                if _is_page(first) or not self._dialect:
                    raise self._page(response, chain((first,), pieces))
                frames: list[bytes] = []
                reading = self._frames(response, first, _paced(pieces, held), silence)
                size = 0
                while True:
                    try:
                        came = next(reading)
                    except StopIteration as stop:
                        outcome: Outcome = stop.value
                        if outcome.failure is not None:
                            raise outcome.failure from None
                        return frames, outcome
                    frames += came
                    size += sum(map(len, came))
                    if size > self._most:
                        raise unfit("it is too long", "", self._secrets)

    def _first(self, pieces: Iterable[bytes], silence: SilenceLimit) -> bytes:
        """What begins with the first byte that is no space; that keeps some connections open."""
        size = 0
        for piece in pieces:
            if rest := piece.lstrip(_BLANK):
                return rest
            size += len(piece)
            if size > _MAX_NOTHING:
                break
            if self._dialect:
                silence.heard()
        return b""

    def _frames(
        self,
        response: httpx2.Response,
        first: bytes,
        pieces: Iterable[bytes],
        silence: SilenceLimit,
    ) -> Generator[list[bytes], None, Outcome]:
        answer = self._answer
        splitter = FrameSplitter(self._most_event)
        nothing = 0
        end: dialects.End | None
        try:
            for piece in chain((first,), pieces):
                silence.reading = False
                try:
                    frames = splitter.feed(piece)
                except FrameTooLong:
                    raise unfit("an event of it is too long", "", self._secrets) from None
                kept: list[bytes] = []
                if frames:
                    kept, end = answer.take(frames)
                    if kept:
                        answer.begun = True
                        nothing = 0
                        yield kept
                    if end is not None:
                        return _finished(end)
                if not kept:
                    nothing += len(piece) + _COST * len(frames)
                    if nothing > _MAX_NOTHING + splitter.pending:
                        raise unfit("nothing comes but comments", "", self._secrets)
                if answer.patience is not None:
                    silence.shorten(answer.patience)
                    # Comments, and empty events that are sent in their place, prolong nothing.
                    if not any(map(_SAYS_SOMETHING.search, kept)):
                        silence.reading = True
                        continue
                silence.heard()
        except httpx2.HTTPError:
            # Nothing is missing where every choice has said why it ends.
            end = answer.rest(b"")
            if silence.exceeded or not splitter.rest:
                if isinstance(end, Outcome):
                    return end
                if isinstance(end, failures.UpstreamFailure):
                    return Outcome.failed(end)
            raise
        if not answer.begun and first and not _begins_stream(first):
            raise self._page(response, (first,))
        rest = splitter.rest
        if isinstance(message(rest)[1], dict):
            # The last event lacks only its blank line: a cut one would be no JSON.
            kept, end = answer.take([rest.rstrip(b"\r\n") + b"\n\n"])
            if kept:
                answer.begun = True
                yield kept
            if end is not None:
                return _finished(end)
            rest = b""
        return _finished(answer.rest(rest))

    def _unfold(
        self, response: httpx2.Response, pieces: Iterable[bytes]
    ) -> tuple[list[bytes], dialects.End]:
        content = self._read(pieces, min(self._most, _MAX_PARSED))
        text = _text(response, content)
        value = value_of(text)
        if isinstance(value, dict) and (error := error_of_choices(value)):
            raise reported(error, self._secrets)
        if is_answer(self._dialect, value):
            frames, end = self._answer.take(stream_of(self._dialect, value))
            return frames, end or self._answer.rest(b"")
        if _tells_error(value):
            raise reported(value, self._secrets)
        raise unfit(
            f"it is {_label(response)}, neither an event stream nor an answer", text, self._secrets
        )

    def _document(self, response: httpx2.Response, pieces: Iterable[bytes]) -> bytes:
        content = self._read(pieces, self._most)
        if len(content) > _MAX_PARSED and content[:1] + content.rstrip()[-1:] in (b"{}", b"[]"):
            return content
        text = _text(response, content)
        value = value_of(text)
        if not is_answer(self._dialect, value) and _tells_error(value):
            raise reported(value, self._secrets)
        if isinstance(value, dict) and (error := error_of_choices(value)):
            raise reported(error, self._secrets)
        if ("NaN" in text or "Infinity" in text) and not is_json(text.encode(errors="replace")):
            raise unfit("it is not JSON, which has neither NaN nor Infinity", text, self._secrets)
        if isinstance(value, dict) and (safe := without_secrets(value, self._secrets)) is not None:
            return safe
        # A list of models may be a bare one.
        if not isinstance(value, dict if self._dialect else (dict, list)):
            raise unfit("it is not a JSON object", text, self._secrets)
        return content if content.lstrip()[:1] in b"{[" and _is_utf_8(content) else text.encode()

    def _read(self, pieces: Iterable[bytes], most: int) -> bytes:
        content = bytearray()
        for piece in pieces:
            content += piece
            if len(content) > most:
                raise unfit("it is too long", "", self._secrets)
        return bytes(content)

    def _page(self, response: httpx2.Response, pieces: Iterable[bytes]) -> Failure:
        content = b""
        for piece in pieces:
            content += piece
            if len(content) > _PAGE:
                break
        expected = "an event stream" if self._dialect else "JSON"
        return unfit(
            f"it is {_label(response)}, not {expected}", _text(response, content), self._secrets
        )


@functools.cache
def _large_ones() -> threading.BoundedSemaphore:
    # At the first use: under gevent it must be gevent's, which is there from the worker's start.
    return threading.BoundedSemaphore(_MOST_LARGE)


def _paced(pieces: Iterable[bytes], held: contextlib.ExitStack) -> Iterator[bytes]:
    """Have what turns out to be large wait until there are few others that are."""
    size = 0
    for piece in pieces:
        yield piece
        if size <= _LARGE < (size := size + len(piece)):
            held.enter_context(_large_ones())


@contextlib.contextmanager
def _failing(silence: SilenceLimit) -> Iterator[None]:
    """Say what has gone wrong with the connection, in this server's words."""
    try:
        yield
    except (httpx2.HTTPError, Failure) as error:
        if silence.exceeded:
            raise failures.timeout() from error
        if isinstance(error, Failure):
            raise
        raise failures.while_reading(error) from error


def _is_json(first: bytes) -> bool:
    return first[:1] in (b"{", b"[", b'"')


def _is_page(first: bytes) -> bool:
    return first[:1] == b"<"


def _begins_stream(first: bytes) -> bool:
    return first.startswith((b":", b"data", b"event", b"id", b"retry", b"error:"))


def _tells_error(value: Any) -> bool:
    if isinstance(value, list):
        return len(value) == 1 and isinstance(value[0], dict) and bool(value[0].get("error"))
    return isinstance(value, dict) and is_error(value)


def _finished(end: dialects.End) -> Outcome:
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
    """What an answer is called, as its headers say."""
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()[:60]
    coding = response.headers.get("Content-Encoding", "identity")[:60]
    label = kind if kind.isascii() and kind.isprintable() and kind else "of no type"
    return label if coding == "identity" else f"{label}, compressed ({coding})"


def _read_rest(response: httpx2.Response, pieces: Iterable[bytes]) -> None:
    """Read an answer's response to its end, which usually is there already."""
    size = 0
    try:
        with SilenceLimit(response, _REST_SECONDS):
            for piece in pieces:
                size += len(piece)
                if size > _REST_BYTES:
                    return
    except httpx2.HTTPError as error:
        log.debug("the connection can't be used again: %s", type(error).__name__)
