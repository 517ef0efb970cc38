"""A completion that an application asks for with its own client of OpenAI's SDK."""

from __future__ import annotations

import contextlib
import inspect
import logging
import re
from collections.abc import Iterator, Mapping
from typing import Any

import httpx2
import openai

from sseflask.completions.completion_source import CompletionSource
from sseflask.completions.dialects import CHAT
from sseflask.completions.response_reader import ResponseReader
from sseflask.completions.sdk_failures import failure_of
from sseflask.completions.upstream_connection import give_way
from sseflask.completions.upstream_errors import about_usage, relayed_headers
from sseflask.runs.outcome import Generated, ReportedFailure

log = logging.getLogger(__name__)

#: Seconds of silence from an upstream whose client has no timeout.
_PATIENCE = 86_400.0
#: Names of headers and of parameters in an address whose values nobody else may see.
_CONFIDENTIAL = re.compile("auth|key|token|secret|password|cookie", re.IGNORECASE)


class ClientCompletion(CompletionSource):
    """A completion of either API.

    Args:
        label: the name of the API.
        client: sends the request as it always does, with its own retries, timeouts and key.
        parameters: as the client's method takes them; ``stream`` is added.

    Raises:
        TypeError: the client is none of the synchronous ones, or its method does not take these
            parameters.
    """

    def __init__(self, label: str, client: openai.OpenAI, parameters: Mapping[str, Any]) -> None:
        super().__init__(label)
        _check_client(client)
        api: Any = client.chat.completions if label == CHAT else client.responses
        if not parameters.get("stream", True):
            raise TypeError("stream=False: a run streams; leave it out")
        self._parameters = {**parameters, "stream": True}
        self._usage_added = label == CHAT and "stream_options" not in parameters
        if self._usage_added:
            self._parameters["stream_options"] = {"include_usage": True}
        inspect.signature(api.create).bind(**self._parameters)
        # A compressed stream arrives in lumps.
        headers = {"Accept-Encoding": "identity", **(parameters.get("extra_headers") or {})}
        self._parameters["extra_headers"] = headers
        self._create = api.with_streaming_response.create
        number = parameters.get("n")
        self._choices = number if isinstance(number, int) and number > 1 else 1

    def answer(self, headers: dict[str, str]) -> Generated:
        reader: ResponseReader | None = None
        try:
            with self._responding() as response:
                secrets = _secrets_of(response.request)
                headers.update(relayed_headers(response.headers, secrets))
                seconds = response.request.extensions.get("timeout", {}).get("read") or _PATIENCE
                reader = ResponseReader(secrets, seconds, self.label, self._choices)
                yield from reader.stream(_own(response))
        except ReportedFailure as failure:
            started = reader is not None and reader.started
            if started or not self._usage_added or not about_usage(failure):
                raise
            log.warning("the upstream refuses stream_options, and is asked again without")
            self._usage_added = False
            del self._parameters["stream_options"]
            yield from self.answer(headers)

    @contextlib.contextmanager
    def _responding(self) -> Iterator[Any]:
        """The response, httpx2's or httpx's: the SDK takes clients of both."""
        with contextlib.ExitStack() as stack:
            try:
                answer = stack.enter_context(self._create(**self._parameters))
            except openai.APIError as error:
                raise failure_of(error, _secrets_of(error.request)) from error
            yield answer.http_response


class _Body(httpx2.SyncByteStream):
    """The body of a response of httpx2 or httpx, with the errors of httpx2."""

    def __init__(self, response: Any) -> None:
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        try:
            for piece in self._response.stream:
                yield piece
                give_way()
        except httpx2.HTTPError:
            raise
        except Exception as error:
            same = getattr(httpx2, type(error).__name__, None)
            if not (isinstance(same, type) and issubclass(same, httpx2.HTTPError)):
                raise
            raise same(str(error)) from error

    def close(self) -> None:
        self._response.close()


def _own(response: Any) -> httpx2.Response:
    """A response as `ResponseReader` takes it."""
    given, extensions = response.request, {}
    timeouts: dict[str, float | None] = {}
    # Over HTTP/2 other responses share the connection: it is not ours to cut, and the client's own
    # timeout ends the silence.
    if response.http_version != "HTTP/2" and "network_stream" in response.extensions:
        extensions["network_stream"] = response.extensions["network_stream"]
        timeouts = given.extensions.get("timeout", {})
    return httpx2.Response(
        response.status_code,
        headers=response.headers.raw,
        stream=_Body(response),
        extensions=extensions,
        request=httpx2.Request(given.method, str(given.url), extensions={"timeout": timeouts}),
    )


def _secrets_of(request: Any) -> tuple[str, ...]:
    """What a request has that nobody may see in an error or in the log."""
    named = [*request.headers.items(), *request.url.params.multi_items()]
    values = [value for name, value in named if _CONFIDENTIAL.search(name)]
    words = [word for value in values for word in value.split()[-1:]]
    return (*values, *words, request.url.password)


def _check_client(client: object) -> None:
    if isinstance(client, openai.AsyncOpenAI):
        plain = type(client).__name__.removeprefix("Async")
        raise TypeError(
            f"{type(client).__name__} is asynchronous; sseflask runs synchronous code: use "
            f"openai.{plain}, gevent makes its blocking calls cooperative"
        )
    if not isinstance(client, openai.OpenAI):
        raise TypeError(
            "client must be an openai.OpenAI or openai.AzureOpenAI, not "
            f"{type(client).__name__}; text_chunks takes the text of any other library"
        )
