"""The upstream: a client of it, one per process, read as raw bytes."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import httpx2
from flask import Flask, current_app

from sseflask.completions import dialects, failures
from sseflask.completions.assembly import document_of
from sseflask.completions.demo import MAX_PROMPT, DemoClient
from sseflask.completions.frame_splitter import read_json
from sseflask.completions.outcome import Outcome
from sseflask.completions.response_reader import ResponseReader
from sseflask.completions.upstream_headers import relayed_headers
from sseflask.config import Settings
from sseflask.outbound import Outbound

__all__ = ["CompletionRequest", "Upstream", "current_upstream"]

log = logging.getLogger(__name__)

_EXTENSION = "sseflask.upstream"
#: Seconds that a list of models may take, and bytes that it may have.
_MODELS_SECONDS, _MOST_MODELS = 30.0, 8 * 1024 * 1024
#: The parameter that this server adds by itself, and what an upstream that refuses it calls it.
_ADDED = ("stream_options", "include_usage")


@dataclass(frozen=True)
class CompletionRequest:
    """What an upstream is asked for.

    Args:
        path: below the base URL: ``/chat/completions`` or ``/responses``.
        content: the JSON body, sent as it is.
        plain: the same without ``stream_options``, for an upstream that refuses them; ``None`` if
            the client itself has asked for them.
    """

    path: str
    body: bytes
    fallback_body: bytes | None = None

    @property
    def dialect(self) -> str:
        """The name of the API that it is asked of, see `sseflask.completions.dialects`."""
        return dialects.dialect_of(self.path)


class _Client(Protocol):
    def ask(
        self, path: str, content: bytes | None, seconds: float | None = None
    ) -> httpx2.Response: ...

    def close(self) -> None: ...


class Upstream:
    """An OpenAI-compatible server, or the demo model where none is configured. Thread-safe.

    Args:
        settings: the key, the base URL, the timeout.

    Attributes:
        demo: the demo model answers.
        model: the model to ask for where a request names none.
        max_prompt: bytes that a prompt may have.

    Raises:
        ConfigError: proxies or certificates of the environment can't be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._secrets = settings.confidential
        self._lock = threading.Lock()
        self._client: tuple[int, _Client] | None = None
        self._make_client = _maker(settings)
        self._plainly = False
        self.demo = settings.demo
        self.model = settings.model
        self.max_prompt = settings.max_prompt
        if self.demo:
            self.max_prompt = min(self.max_prompt, MAX_PROMPT)

    def init_app(self, app: Flask) -> None:
        """Make this the upstream of the app's views."""
        app.extensions[_EXTENSION] = self

    def close(self) -> None:
        """Close the idle connections; the next completion opens new ones."""
        with self._lock:
            if self._client is not None:
                self._client[1].close()
                self._client = None

    def stream(
        self, asked: CompletionRequest, told: dict[str, str] | None = None
    ) -> Generator[list[bytes] | Outcome, None, None]:
        """Run a completion and pass on what it streams.

        Nothing is sent before the first ``next()``; closing, or any exception thrown in, cancels
        the upstream's request. Blocks for each read, at most the upstream's timeout. An upstream
        that refuses ``stream_options`` is asked a second time, and from then on without them.

        Args:
            asked: a request for a stream.
            told: gets the headers that a client is told, before the first frame is given.

        Yields:
            the frames that a read completed, at least one, as they came but for comments, ``id``
            and ``retry``; not the one that says that the answer is complete. At last how the answer
            ended, as the upstream says, without its usage; who then wants more waits until the
            response has been read, so that its connection can be used again.

        Raises:
            Failure: the upstream refused the request, failed, broke off, or sent what is no
                answer; `UpstreamFailure` for an error that it reported itself.
        """
        plain = asked.fallback_body
        content = plain if plain is not None and self._plainly else asked.body
        reading = self._reading(asked, content)
        try:
            yield from self._stream(reading, asked.path, content, told)
        except failures.UpstreamFailure as failure:
            if plain in (None, content) or reading.begun or not _about_added(failure):
                raise
            assert plain is not None
            log.warning("the upstream refuses stream_options, and is asked without from now on")
            self._plainly = True
            yield from self._stream(self._reading(asked, plain), asked.path, plain, told)

    def complete(
        self,
        asked: CompletionRequest,
        told: dict[str, str] | None = None,
        held: contextlib.ExitStack | None = None,
    ) -> bytes:
        """Run a completion that is not streamed. Blocks until it is there.

        Only a few large answers are in memory at the same time: others wait for them.

        Args:
            asked: a request for an answer in one piece.
            told: gets the headers that a client is told.
            held: is closed by the caller once the answer is out of memory; by default at the end.

        Returns:
            the upstream's answer, as it came if it was a JSON object; put together if it was a
            stream.

        Raises:
            Failure: the upstream refused the request or failed.
        """
        reading = self._reading(asked, asked.body)
        with contextlib.ExitStack() as own:
            response = own.enter_context(
                contextlib.closing(self._ask(asked.path, asked.body, told=told))
            )
            came = reading.whole(response, own if held is None else held)
        if isinstance(came, bytes):
            return came
        return document_of(asked.dialect, *came)

    def models(self) -> bytes:
        """The upstream's list of models, as JSON. Blocks until it is there.

        Raises:
            Failure: the upstream refused the request or failed.
        """
        seconds = min(_MODELS_SECONDS, self._settings.upstream_timeout)
        reading = ResponseReader(self._secrets, seconds, most=_MOST_MODELS)
        with contextlib.closing(self._ask("/models", None, seconds)) as response:
            content = reading.whole(response, contextlib.ExitStack())
        assert isinstance(content, bytes)
        return content

    def _reading(self, asked: CompletionRequest, content: bytes) -> ResponseReader:
        return ResponseReader(
            self._secrets,
            self._settings.upstream_timeout,
            dialect=asked.dialect,
            choices=_choices(content),
            most_event=self._settings.max_event,
        )

    def _stream(
        self, reading: ResponseReader, path: str, content: bytes, told: dict[str, str] | None
    ) -> Generator[list[bytes] | Outcome, None, None]:
        with contextlib.closing(self._ask(path, content, told=told)) as response:
            yield from reading.stream(response)

    def _ask(
        self,
        path: str,
        content: bytes | None,
        seconds: float | None = None,
        told: dict[str, str] | None = None,
    ) -> httpx2.Response:
        """Send a request, and give its response once its head is there; to be closed.

        Args:
            path: below the base URL.
            content: the body; without one it is a GET.
            seconds: how long the head may take, by default the upstream's timeout.
            told: gets the headers that a client is told.
        """
        response = self._connected().ask(path, content, seconds)
        if told is not None:
            told.update(relayed_headers(response.headers, self._secrets))
        return response

    def _connected(self) -> _Client:
        # Made after the fork, as worker processes must not share connections.
        with self._lock:
            if self._client is None or self._client[0] != os.getpid():
                self._client = (os.getpid(), self._make_client())
            return self._client[1]


def current_upstream() -> Upstream:
    """The upstream of the current app."""
    upstream: Upstream = current_app.extensions[_EXTENSION]
    return upstream


def _maker(settings: Settings) -> Callable[[], _Client]:
    if settings.demo:
        return DemoClient
    # At the start, or the first request would stop all streams meanwhile; and only here, as it is
    # half of a worker's start.
    from sseflask.completions.client import OfficialClient

    return partial(OfficialClient, settings, Outbound.from_environment(settings.upstream_url))


def _about_added(failure: failures.UpstreamFailure) -> bool:
    told = failure.json().lower().replace(" ", "_")
    return any(name in told for name in _ADDED)


def _choices(content: bytes) -> int:
    """How many answers at once a request asks for."""
    if b'"n"' not in content:
        return 1
    try:
        asked = read_json(content)
    except ValueError:
        return 1
    number = asked.get("n") if isinstance(asked, dict) else None
    return number if isinstance(number, int) and number > 1 else 1
