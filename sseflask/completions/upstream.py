"""The upstream: the official OpenAI client, one per process, read as raw bytes."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import threading
from collections.abc import Generator, Iterable, Iterator
from typing import Any

import httpx2
import openai
from flask import Flask, current_app

# The SDK imports its resources at their first use, which would stall every stream of the worker.
from openai.resources.chat.completions import Completions

from sseflask.completions import demo, failures
from sseflask.completions.frames import FrameSplitter, FrameTooLong, fields, without_comments
from sseflask.completions.silence import SilenceLimit
from sseflask.config import Settings
from sseflask.errors import Failure
from sseflask.masking import mask

__all__ = ["DONE", "ErrorFrame", "Upstream", "current_upstream"]

log = logging.getLogger(__name__)

#: The end of a complete answer, as OpenAI sends it.
DONE = b"data: [DONE]\n\n"

_EXTENSION = "sseflask.upstream"
_CONNECT_SECONDS = 5.0
_MAX_FRAME = 4 * 1024 * 1024
#: After the answer's end the rest of the response is read, so that its connection can be used
#: again, but not for longer than this and not more than this.
_REST_SECONDS = 0.5
_REST_BYTES = 65_536

# Inside a JSON text a quotation mark is escaped, so neither can be part of what the model says.
_FINISHED = re.compile(rb'"finish_reason"\s*:\s*"[^"]')
_MAYBE_ERROR = b'"error"'


class ErrorFrame(failures.UpstreamFailure):
    """An error that the upstream reported inside its stream.

    Attributes:
        frame: the frame it came in, our key masked.
    """

    def __init__(self, failure: failures.UpstreamFailure, frame: bytes) -> None:
        super().__init__(failure.status, failure.error)
        self.frame = frame


class Upstream:
    """An OpenAI-compatible server, or the demo model where none is configured. Thread-safe.

    Args:
        settings: the key, the base URL, the timeout.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._secrets = settings.confidential
        self._lock = threading.Lock()
        self._client: tuple[int, openai.OpenAI] | None = None
        self.demo = settings.demo

    def init_app(self, app: Flask) -> None:
        """Make this the upstream of the app's views."""
        app.extensions[_EXTENSION] = self

    def close(self) -> None:
        """Close the idle connections; the next completion opens new ones."""
        with self._lock:
            if self._client is not None:
                self._client[1].close()
                self._client = None

    def frames(
        self, messages: list[dict[str, Any]], model: str | None = None
    ) -> Generator[bytes, None, None]:
        """Run a chat completion and pass on what it streams.

        Nothing is sent before the first ``next()``; closing, or any exception thrown in, cancels
        the upstream's request. Blocks for each frame, at most the upstream's timeout.

        Args:
            messages: the conversation, as the API takes it.
            model: the model; by default the configured one.

        Yields:
            each frame as it came, without comments, and `DONE` when the answer is complete.

        Raises:
            ErrorFrame: the upstream reported an error inside its stream.
            Failure: it refused the request, failed, or broke off.
        """
        asked = {"messages": messages, "model": model or self._settings.model, "stream": True}
        with contextlib.ExitStack() as stack:
            try:
                completions: Completions = self._connected().chat.completions
                response = stack.enter_context(
                    completions.with_streaming_response.create(**asked)  # type: ignore[call-overload]  # checked by the upstream
                )
            except openai.APIError as error:
                raise failures.from_sdk(error, self._secrets) from error
            _require_stream(response.headers.get("Content-Type", ""))
            pieces = _body(response.http_response)
            silence = SilenceLimit(response.http_response, self._settings.upstream_timeout)
            try:
                with silence:
                    yield from self._answer(pieces, silence)
                yield DONE
                _read_rest(response.http_response, pieces)
            except (httpx2.HTTPError, Failure) as error:
                if silence.exceeded:
                    raise failures.timeout() from error
                if isinstance(error, Failure):
                    raise
                raise failures.while_reading(error) from error

    def _answer(self, pieces: Iterable[bytes], silence: SilenceLimit) -> Iterator[bytes]:
        """The frames of one answer; returns when it is complete, raises when it is not."""
        splitter = FrameSplitter(_MAX_FRAME)
        finished = False
        for piece in pieces:
            silence.reading = False
            try:
                frames = splitter.feed(piece)
            except FrameTooLong:
                raise failures.not_a_stream("an event of it is too long") from None
            for frame in frames:
                if frame.startswith(b"data: {") and b"\n:" not in frame and b"\r:" not in frame:
                    kept = frame
                else:
                    event, data = fields(frame)
                    if data is None:
                        continue
                    if data == b"[DONE]":
                        return
                    kept = without_comments(frame)
                    if event == b"error":
                        raise self._error(kept, data)
                if _MAYBE_ERROR in kept:
                    data = fields(kept)[1]
                    if data is not None and _holds_error(data):
                        raise self._error(kept, data)
                if not finished and _FINISHED.search(kept):
                    finished = True
                yield kept
            silence.heard()
        if not finished and fields(splitter.rest)[1] != b"[DONE]":
            raise failures.broken_off()

    def _error(self, frame: bytes, data: bytes) -> ErrorFrame:
        value = _parsed(data)
        error = value.get("error", value) if isinstance(value, dict) else None
        if isinstance(error, str):
            error = {"message": error}
        failure = failures.error_frame(error, self._secrets)
        in_shape = isinstance(value, dict) and isinstance(value.get("error"), dict)
        text = frame.decode(errors="replace") if in_shape else f"data: {failure.json()}\n\n"
        masked = mask(text, self._secrets)
        return ErrorFrame(
            failure, frame if in_shape and masked == text else masked.encode(errors="replace")
        )

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
                limits=httpx2.Limits(max_connections=None, max_keepalive_connections=100),
            ),
        )


def current_upstream() -> Upstream:
    """The upstream of the current app."""
    upstream: Upstream = current_app.extensions[_EXTENSION]
    return upstream


def _require_stream(content_type: str) -> None:
    # Some servers stream under other names or none; these two certainly hold no stream.
    kind = content_type.partition(";")[0].strip().lower()
    if kind in ("application/json", "text/html"):
        raise failures.not_a_stream(f"it is {kind}, not an event stream")


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _holds_error(data: bytes) -> bool:
    value = _parsed(data)
    return isinstance(value, dict) and bool(value.get("error"))


def _body(response: httpx2.Response) -> Iterator[bytes]:
    """The response's bytes as they arrive.

    Past the layers that count, re-chunk and decode them, which cost more than all that is done
    with a chunk here; unless a server compresses although it was asked not to.
    """
    stream = response.stream
    if response.headers.get("Content-Encoding", "identity") != "identity" or not isinstance(
        stream, httpx2.SyncByteStream
    ):
        return response.iter_bytes()
    timeouts = response.request.extensions.get("timeout")
    if isinstance(timeouts, dict):
        timeouts["read"] = None  # see SilenceLimit
    return iter(stream)


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
