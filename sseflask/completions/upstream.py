"""The upstream: a server of OpenAI's API, whose responses are read as raw bytes."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import httpx2
from flask import Flask, current_app

from sseflask.completions.completion_outcome import CompletionOutcome
from sseflask.completions.demo import MAX_PROMPT, DemoClient
from sseflask.completions.dialects import DIALECTS
from sseflask.completions.frame_splitter import read_json, text_frame
from sseflask.completions.json_values import dict_or_empty
from sseflask.completions.response_reader import ResponseReader
from sseflask.completions.upstream_errors import about_usage, relayed_headers
from sseflask.config import Settings
from sseflask.outbound import Outbound
from sseflask.runs.outcome import ReportedFailure

log = logging.getLogger(__name__)


_EXTENSION = "sseflask.upstream"
#: Seconds that a list of models may take, and bytes that it may have.
_MODELS_SECONDS, _MAX_MODELS = 30.0, 8 * 1024 * 1024


@dataclass(frozen=True)
class CompletionRequest:
    """A request for a completion.

    Args:
        path: below the base URL: ``/chat/completions`` or ``/responses``.
        body: JSON, sent as it is.
        fallback_body: the same without ``stream_options``, for an upstream that refuses them;
            ``None`` if the client itself has asked for them.
    """

    path: str
    body: bytes
    fallback_body: bytes | None = None

    @property
    def dialect(self) -> str:
        return DIALECTS[self.path]

    @property
    def choices(self) -> int:
        if b'"n"' not in self.body:
            return 1
        try:
            parameters = read_json(self.body)
        except ValueError:
            return 1
        number = dict_or_empty(parameters).get("n")
        return number if isinstance(number, int) and number > 1 else 1


class _Client(Protocol):
    def send(
        self, path: str, body: bytes | None, seconds: float | None = None
    ) -> httpx2.Response: ...

    def close(self) -> None: ...


class Upstream:
    """An OpenAI-compatible server, or the demo model if none is configured. Thread-safe.

    Attributes:
        demo: the demo model answers.
        model: the model of requests that name none.
        max_prompt: bytes that a prompt may have.

    Raises:
        ConfigError: proxies or certificates of the environment can't be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._secrets = settings.confidential
        self._lock = threading.Lock()
        self._client: tuple[int, _Client] | None = None
        self._make_client = _client_maker(settings)
        self._use_fallback = False
        self.demo = settings.demo
        self.model = settings.model
        self.max_prompt = settings.max_prompt
        if self.demo:
            self.max_prompt = min(self.max_prompt, MAX_PROMPT)

    def init_app(self, app: Flask) -> None:
        app.extensions[_EXTENSION] = self

    def close(self) -> None:
        """Close the idle connections; the next completion opens new ones."""
        with self._lock:
            if self._client is not None:
                self._client[1].close()
                self._client = None

    def stream(
        self, request: CompletionRequest, headers: dict[str, str] | None = None
    ) -> Generator[list[bytes] | CompletionOutcome, None, None]:
        """Run a completion that is streamed.

        Nothing is sent before the first ``next()``; closing, or any exception thrown in, cancels
        the upstream's request. Blocks for each read, at most the upstream's timeout. An upstream
        that refuses ``stream_options`` is asked a second time, and from then on without them.

        Args:
            headers: gets the upstream's headers that clients get, before the first frame is given.

        Yields:
            the frames that a read completed, at least one, as they came but for comments, ``id``
            and ``retry``; not the one that says that the completion is complete. Then how it ended,
            without its usage. One more ``next()`` waits until the response has been read, so that
            its connection can be used again.

        Raises:
            Failure: the upstream refused the request, failed, broke off, or sent no completion;
                `ReportedFailure` for an error that it reported itself.
        """
        fallback = request.fallback_body
        if self._use_fallback and fallback is not None:
            request = CompletionRequest(request.path, fallback)
        reader = self._reader(request)
        try:
            with self._responding(request, headers) as response:
                yield from reader.stream(response)
        except ReportedFailure as failure:
            asked_for_it = fallback not in (None, request.body)
            if not asked_for_it or reader.started or not about_usage(failure):
                raise
            assert fallback is not None
            log.warning("the upstream refuses stream_options, and is asked without from now on")
            self._use_fallback = True
            yield from self.stream(CompletionRequest(request.path, fallback), headers)

    def document(
        self, request: CompletionRequest, headers: dict[str, str] | None = None
    ) -> Generator[list[bytes] | CompletionOutcome, None, None]:
        """Run a completion that is not streamed; otherwise as `stream`.

        Only a few large documents are in memory at the same time. Others wait until the generators
        of these have ended.

        Yields:
            one frame with the upstream's document, as it came if it was a JSON object; made of its
            stream if it streamed. Then the outcome.
        """
        with contextlib.closing(self._reader(request)) as reader:
            # Not bound to a name, which would keep it in memory.
            yield [text_frame(self._document(reader, request, headers))]
            yield CompletionOutcome("finished")

    def _document(
        self, reader: ResponseReader, request: CompletionRequest, headers: dict[str, str] | None
    ) -> bytes:
        with self._responding(request, headers) as response:
            return reader.document(response)

    def models(self) -> bytes:
        """The upstream's list of models, as JSON. Blocks until it is there; raises as `stream`."""
        seconds = min(_MODELS_SECONDS, self._settings.upstream_timeout)
        reader = ResponseReader(self._secrets, seconds, max_document=_MAX_MODELS)
        with contextlib.closing(self._send("/models", None, seconds)) as response:
            return reader.document(response)  # which is never a large one

    def _reader(self, request: CompletionRequest) -> ResponseReader:
        return ResponseReader(
            self._secrets,
            self._settings.upstream_timeout,
            dialect=request.dialect,
            choices=request.choices,
            max_event=self._settings.max_event,
        )

    @contextlib.contextmanager
    def _responding(
        self, request: CompletionRequest, headers: dict[str, str] | None
    ) -> Iterator[httpx2.Response]:
        with contextlib.closing(self._send(request.path, request.body)) as response:
            if headers is not None:
                headers.update(relayed_headers(response.headers, self._secrets))
            yield response

    def _send(self, path: str, body: bytes | None, seconds: float | None = None) -> httpx2.Response:
        with self._lock:
            # Made after the fork, as worker processes must not share connections.
            if self._client is None or self._client[0] != os.getpid():
                self._client = (os.getpid(), self._make_client())
            client = self._client[1]
        return client.send(path, body, seconds)


def current_upstream() -> Upstream:
    upstream: Upstream = current_app.extensions[_EXTENSION]
    return upstream


def _client_maker(settings: Settings) -> Callable[[], _Client]:
    if settings.demo:
        return DemoClient
    # Imported at the start: at the first request it would hold up all streams. But not for the demo
    # model: it takes half of a worker's start.
    from sseflask.completions.openai_client import OpenAIClient

    return partial(OpenAIClient, settings, Outbound.from_environment(settings.upstream_url))
