"""The official OpenAI client, set up so that no upstream leads it elsewhere, or holds it."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Iterator
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import cast
from urllib.parse import urlsplit

import httpx2
import openai

from sseflask.completions import failures
from sseflask.completions.content_coding import decode
from sseflask.completions.read_timeout import SilenceLimit
from sseflask.completions.transport import Transport
from sseflask.completions.upstream_errors import LOCATION, refused
from sseflask.config import Settings
from sseflask.outbound import Outbound

__all__ = ["OfficialClient"]

log = logging.getLogger(__name__)

_CONNECT_SECONDS = 5.0
#: Seconds that an idle connection is used again for: servers keep them for 5 s and more, and one
#: that closes it while a request is on its way could have begun with it.
_IDLE_SECONDS = 4.0
#: What is read of a response that is none to relay: an error, or one that points elsewhere; and the
#: seconds for it.
_REFUSAL_BYTES, _REFUSAL_SECONDS = 262_144, 10.0


class OfficialClient:
    """The SDK's client of the upstream. Thread-safe; for one process, as it has connections.

    It follows no redirection, keeps no cookie, repeats no request.

    Args:
        settings: the key, the base URL, the timeout.
        reach: the way to the upstream.
    """

    def __init__(self, settings: Settings, reach: Outbound) -> None:
        url = urlsplit(settings.upstream_url)
        self._query = f"?{url.query}" if url.query else ""
        self._secrets = settings.confidential
        self._client = _client(settings, url._replace(query="").geturl(), reach)

    def ask(
        self, path: str, content: bytes | None, seconds: float | None = None
    ) -> httpx2.Response:
        """Send a request, and give its response once its head is there; to be closed.

        Args:
            path: below the base URL.
            content: the body; without one it is a GET.
            seconds: how long the head may take, by default the upstream's timeout.

        Raises:
            Failure: the upstream refused the request, or can't be reached.
        """
        # Below the SDK's typed methods, which refuse parameters that they do not know.
        options: openai._types.RequestOptions = {} if seconds is None else {"timeout": seconds}
        try:
            if content is None:
                stream = self._client.get(
                    path + self._query,
                    cast_to=httpx2.Response,
                    options=options,
                    stream=True,
                    stream_cls=openai.Stream[object],
                )
            else:
                stream = self._client.post(
                    path + self._query,
                    cast_to=httpx2.Response,
                    content=content,
                    options=options,
                    stream=True,
                    stream_cls=openai.Stream[object],
                )
        except openai.APIStatusError as error:
            raise refused(error.response, error.response.content, self._secrets) from error
        except openai.APITimeoutError as error:
            raise failures.timeout() from error
        except openai.APIError as error:
            raise failures.unreachable(error) from error
        return cast(httpx2.Response, stream)  # it gives a response where it is asked for one

    def close(self) -> None:
        """Close its connections."""
        self._client.close()


def _client(settings: Settings, url: str, reach: Outbound) -> openai.OpenAI:
    key = settings.openai_api_key
    tls = _tls(settings, reach)
    return openai.OpenAI(
        # Servers of one's own often want no key, the SDK always does.
        api_key=key.get_secret_value() if key else "none",
        base_url=url,
        # A retry would bill twice, and the client can repeat a request itself.
        max_retries=0,
        # Compressed streams arrive in lumps and cost time at both ends.
        default_headers={"Accept-Encoding": "identity"},
        http_client=httpx2.Client(
            timeout=httpx2.Timeout(settings.upstream_timeout, connect=_CONNECT_SECONDS),
            # One user's prompt is not sent to whomever an answer names, ...
            follow_redirects=False,
            # ... and one user's cookies are not sent with another's request.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            trust_env=False,
            transport=Transport(
                tls, _proxy(reach.proxy, tls) if reach.proxy else None, _IDLE_SECONDS
            ),
            event_hooks={"response": [decode, _bound]},
        ),
    )


def _tls(settings: Settings, reach: Outbound) -> ssl.SSLContext:
    urls = (settings.upstream_url, reach.proxy or "")
    if not any(url.lower().startswith("https:") for url in urls):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # not used: spares the system's authorities
    if reach.cafile or reach.capath:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(reach.cafile, reach.capath)
        return context
    return httpx2.create_ssl_context(trust_env=False)


def _proxy(url: str, tls: ssl.SSLContext) -> httpx2.Proxy:
    over_tls = url.lower().startswith("https:")
    return httpx2.Proxy(url, ssl_context=tls if over_tls else None)


class _Beginning(httpx2.SyncByteStream):
    """The beginning of a body, which also ends where the upstream fails to send more of it in time.

    The status says enough: that of an error stays what it is without its message.
    """

    def __init__(self, response: httpx2.Response, body: httpx2.SyncByteStream) -> None:
        self._response = response
        # Decompressed here, piece by piece: a little may become a thousand times as much.
        self._plain = httpx2.Response(
            response.status_code,
            headers={"Content-Encoding": response.headers.pop("Content-Encoding", "identity")},
            stream=body,
        )

    def __iter__(self) -> Iterator[bytes]:
        left = _REFUSAL_BYTES
        try:
            with SilenceLimit(self._response, _REFUSAL_SECONDS):
                for piece in self._plain.iter_bytes():
                    yield piece[:left]
                    left -= len(piece)
                    if left <= 0:
                        return
        except httpx2.HTTPError as error:
            log.warning("the upstream's error can't be read: %s", type(error).__name__)

    def close(self) -> None:
        self._plain.close()


def _bound(response: httpx2.Response) -> None:
    """Let the SDK, which reads refusals to their end, find that after a while."""
    if response.has_redirect_location:
        # The client reads it although it is not to follow it, and fails where it is no address.
        response.extensions[LOCATION] = response.headers.pop("Location")
    if not response.is_success and isinstance(response.stream, httpx2.SyncByteStream):
        response.stream = _Beginning(response, response.stream)
