"""The upstream: the official OpenAI client, one per process, read as raw bytes."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import cast

import httpx2
import openai
from flask import Flask, current_app

from sseflask.completions import demo, dialects, failures
from sseflask.completions.body import body, watch_connections, watch_responses
from sseflask.completions.frames import FrameSplitter, FrameTooLong
from sseflask.completions.outcome import Outcome
from sseflask.completions.silence import SilenceLimit
from sseflask.config import Settings
from sseflask.errors import Failure

__all__ = ["Asked", "Upstream", "current_upstream"]

log = logging.getLogger(__name__)

_EXTENSION = "sseflask.upstream"
_CONNECT_SECONDS = 5.0
_MAX_FRAME = 4 * 1024 * 1024
#: Longest answer in one piece: it is held in memory, and may have pictures in it.
_MAX_ANSWER = 64 * 1024 * 1024
#: After the answer's end the rest of the response is read, so that its connection can be used
#: again, but not for longer than this and not more than this.
_REST_SECONDS = 0.05
_REST_BYTES = 65_536
#: What is read of a response that is none to relay: an error, or one that points elsewhere; and the
#: seconds for it.
_REFUSAL_BYTES, _REFUSAL_SECONDS = 1_048_576, 10.0
#: The same of one that is compressed, which may become a thousand times as much.
_COMPRESSED_BYTES = 4_096
#: Seconds that an idle connection is used again for: servers keep them for 5 s and more, and one
#: that closes it while a request is on its way could have begun with it.
_IDLE_SECONDS = 4.0


@dataclass(frozen=True)
class Asked:
    """What an upstream is asked for.

    Args:
        path: below the base URL: ``/chat/completions`` or ``/responses``.
        content: the JSON body, sent as it is.
    """

    path: str
    content: bytes

    @property
    def dialect(self) -> str:
        """The name of the API that it is asked of, see `sseflask.completions.dialects`."""
        return dialects.dialect_of(self.path)


class Upstream:
    """An OpenAI-compatible server, or the demo model where none is configured. Thread-safe.

    Args:
        settings: the key, the base URL, the timeout.

    Attributes:
        demo: the demo model answers.
        model: the model to ask for where a request names none.
        most_prompt: bytes that a prompt may have.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._secrets = settings.confidential
        self._lock = threading.Lock()
        self._client: tuple[int, openai.OpenAI] | None = None
        self.demo = settings.demo
        self.model = settings.model
        self.most_prompt = settings.max_prompt

    def init_app(self, app: Flask) -> None:
        """Make this the upstream of the app's views."""
        app.extensions[_EXTENSION] = self

    def close(self) -> None:
        """Close the idle connections; the next completion opens new ones."""
        with self._lock:
            if self._client is not None:
                self._client[1].close()
                self._client = None

    def frames(self, asked: Asked) -> Generator[list[bytes] | Outcome, None, None]:
        """Run a completion and pass on what it streams.

        Nothing is sent before the first ``next()``; closing, or any exception thrown in, cancels
        the upstream's request. Blocks for each read, at most the upstream's timeout.

        Args:
            asked: a request for a stream.

        Yields:
            the frames that a read completed, at least one, as they came but for comments, ``id``
            and ``retry``; not the one that says that the answer is complete. At last how the answer
            ended, as the upstream says, without its usage; who then wants more waits until the
            response has been read, so that its connection can be used again.

        Raises:
            Failure: the upstream refused the request, failed, broke off, or sent what is no
                stream; `UpstreamFailure` for an error that it reported itself.
        """
        answer = dialects.answer(asked.dialect, self._secrets)
        with (
            contextlib.closing(self._stream(asked)) as response,
            contextlib.closing(body(response)) as pieces,
        ):
            _require_stream(response.headers.get("Content-Type", ""))
            silence = SilenceLimit(response, self._settings.upstream_timeout)
            try:
                with silence:
                    end = yield from _read(pieces, silence, answer)
                if isinstance(end, Failure):
                    raise end
            except (httpx2.HTTPError, Failure) as error:
                if silence.exceeded:
                    raise failures.timeout() from error
                if isinstance(error, Failure):
                    raise
                raise failures.while_reading(error) from error
            yield end
            _read_rest(response, pieces)

    def answer(self, asked: Asked) -> tuple[bytes, str]:
        """Run a completion that is not streamed. Blocks until it is there.

        Args:
            asked: a request for an answer in one piece.

        Returns:
            the upstream's answer and its content type, as they came.

        Raises:
            Failure: the upstream refused the request or failed.
        """
        with contextlib.closing(self._stream(asked)) as response:
            kind = response.headers.get("Content-Type", "application/json")
            _require_no_page(kind)
            content = bytearray()
            try:
                for piece in response.iter_bytes():
                    content += piece
                    if len(content) > _MAX_ANSWER:
                        raise failures.not_a_stream("it is too long")
            except httpx2.HTTPError as error:
                raise failures.while_reading(error) from error
            return bytes(content), kind

    def models(self) -> bytes:
        """The upstream's list of models, as JSON. Blocks until it is there.

        Raises:
            Failure: the upstream refused the request or failed.
        """
        client = self._connected()
        try:
            response = client.get("/models", cast_to=httpx2.Response)
        except openai.APIError as error:
            raise failures.from_sdk(error, self._secrets) from error
        except httpx2.HTTPError as error:
            raise failures.while_reading(error) from error
        _require_no_page(response.headers.get("Content-Type", ""))
        return response.content

    def _stream(self, asked: Asked) -> httpx2.Response:
        # Below the SDK's typed methods, which refuse parameters that they do not know.
        try:
            stream = self._connected().post(
                asked.path,
                cast_to=httpx2.Response,
                content=asked.content,
                stream=True,
                stream_cls=openai.Stream[object],
            )
        except openai.APIError as error:
            raise failures.from_sdk(error, self._secrets) from error
        except httpx2.HTTPError as error:  # of the body of an error, which the SDK lets through
            raise failures.while_reading(error) from error
        return cast(httpx2.Response, stream)  # it gives a response where it is asked for one

    def _connected(self) -> openai.OpenAI:
        # Made after the fork, as worker processes must not share connections.
        with self._lock:
            if self._client is None or self._client[0] != os.getpid():
                self._client = (os.getpid(), self._make_client())
            return self._client[1]

    def _make_client(self) -> openai.OpenAI:
        settings = self._settings
        if self.demo:
            return demo.client()
        key = settings.openai_api_key
        return openai.OpenAI(
            # Servers of one's own often want no key, the SDK always does.
            api_key=key.get_secret_value() if key else "none",
            base_url=settings.openai_base_url or "https://api.openai.com/v1",
            # A retry would bill twice, and the client can repeat a request itself.
            max_retries=0,
            # Compressed streams arrive in lumps and cost time at both ends.
            default_headers={"Accept-Encoding": "identity"},
            http_client=openai.DefaultHttpxClient(
                timeout=httpx2.Timeout(settings.upstream_timeout, connect=_CONNECT_SECONDS),
                # Every stream needs one: the number of streams is the server's to limit.
                limits=httpx2.Limits(
                    max_connections=None,
                    max_keepalive_connections=100,
                    keepalive_expiry=_IDLE_SECONDS,
                ),
                event_hooks={
                    "request": [watch_connections],
                    "response": [watch_responses, _bound],
                },
            ),
        )


def current_upstream() -> Upstream:
    """The upstream of the current app."""
    upstream: Upstream = current_app.extensions[_EXTENSION]
    return upstream


class _Beginning(httpx2.SyncByteStream):
    """The beginning of a body, which also ends where the upstream fails to send more of it in time.

    The status says enough: that of an error stays what it is without its message.
    """

    def __init__(self, body: httpx2.SyncByteStream, most: int) -> None:
        self._body = body
        self._most = most

    def __iter__(self) -> Iterator[bytes]:
        left, deadline = self._most, time.monotonic() + _REFUSAL_SECONDS
        try:
            for piece in self._body:
                yield piece[:left]
                left -= len(piece)
                if left <= 0 or time.monotonic() > deadline:
                    return
        except httpx2.HTTPError as error:
            log.warning("the upstream's error can't be read: %s", type(error).__name__)

    def close(self) -> None:
        self._body.close()


def _bound(response: httpx2.Response) -> None:
    """Let the SDK, which reads refusals to their end, find that after a while."""
    if not response.is_success and isinstance(response.stream, httpx2.SyncByteStream):
        plain = response.headers.get("Content-Encoding", "identity") == "identity"
        response.stream = _Beginning(
            response.stream, _REFUSAL_BYTES if plain else _COMPRESSED_BYTES
        )


def _require_stream(content_type: str) -> None:
    # Some servers stream under other names or none; these two certainly hold no stream.
    kind = _kind(content_type)
    if kind in ("application/json", "text/html"):
        raise failures.not_a_stream(f"it is {kind}, not an event stream")


def _require_no_page(content_type: str) -> None:
    if _kind(content_type) == "text/html":
        raise failures.not_a_stream("it is text/html, not JSON")


def _kind(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _read(
    pieces: Iterable[bytes], silence: SilenceLimit, answer: dialects.Answer
) -> Generator[list[bytes], None, dialects.End]:
    splitter = FrameSplitter(_MAX_FRAME)
    for piece in pieces:
        silence.reading = False
        try:
            frames = splitter.feed(piece)
        except FrameTooLong:
            return failures.not_a_stream("an event of it is too long")
        if frames:
            kept, end = answer.take(frames)
            if kept:
                yield kept
            if end is not None:
                return end
        silence.heard()
    return answer.rest(splitter.rest)


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
