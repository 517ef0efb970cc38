"""OpenAI's official client, without redirections, cookies, retries and refusals without end."""

from __future__ import annotations

import contextlib
import logging
import ssl
from functools import partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, cast
from urllib.parse import urlsplit

import httpx2
import openai

from sseflask.completions import failures
from sseflask.completions.content_coding import decode
from sseflask.completions.read_deadline import ReadDeadline
from sseflask.completions.upstream_errors import LOCATION, refused
from sseflask.completions.upstream_transport import UpstreamTransport
from sseflask.config import Settings
from sseflask.outbound import Outbound

__all__ = ["OfficialClient"]

log = logging.getLogger(__name__)

_CONNECT_SECONDS = 5.0
#: Seconds that an idle connection may be used again. Servers keep them for 5 s and more. One that
#: is closed while a request is on its way may have begun to work on it.
_IDLE_SECONDS = 4.0
#: What is read of the body of an error or a redirection, and the seconds for it.
_REFUSAL_BYTES, _REFUSAL_SECONDS = 262_144, 10.0


class OfficialClient:
    """The SDK's client of the upstream. Thread-safe; for one process, as it has connections.

    It follows no redirection, keeps no cookie, repeats no request.

    Args:
        settings: the key, the base URL, the timeout.
        outbound: the proxy and the certificates.
    """

    def __init__(self, settings: Settings, outbound: Outbound) -> None:
        url = urlsplit(settings.upstream_url)
        self._query = f"?{url.query}" if url.query else ""
        self._secrets = settings.confidential
        self._client = _client(settings, url._replace(query="").geturl(), outbound)

    def send(self, path: str, body: bytes | None, seconds: float | None = None) -> httpx2.Response:
        """Send a request. Blocks until the head of the response is there.

        Args:
            path: below the base URL.
            body: the JSON body of a POST; ``None`` for a GET.
            seconds: how long the head may take, by default the upstream's timeout.

        Returns:
            the response, which the caller closes.

        Raises:
            Failure: the upstream refused the request, or can't be reached.
        """
        # Below the SDK's typed methods, which refuse parameters that they do not know.
        method: Any = self._client.get
        if body is not None:
            method = partial(self._client.post, content=body)
        try:
            response = method(
                path + self._query,
                cast_to=httpx2.Response,
                options={} if seconds is None else {"timeout": seconds},
                stream=True,
                stream_cls=openai.Stream[object],
            )
        except openai.APIStatusError as error:
            raise refused(error.response, error.response.content, self._secrets) from error
        except openai.APITimeoutError as error:
            raise failures.timeout() from error
        except openai.APIError as error:
            raise failures.unreachable(error) from error
        return cast(httpx2.Response, response)

    def close(self) -> None:
        """Close its connections."""
        self._client.close()


def _client(settings: Settings, url: str, outbound: Outbound) -> openai.OpenAI:
    key = settings.openai_api_key
    tls = _tls(settings, outbound)
    proxy = None
    if outbound.proxy:
        over_tls = outbound.proxy.lower().startswith("https:")
        proxy = httpx2.Proxy(outbound.proxy, ssl_context=tls if over_tls else None)
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
            # One user's prompt is not sent wherever an upstream points, ...
            follow_redirects=False,
            # ... and one user's cookies are not sent with another's request.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            trust_env=False,
            transport=UpstreamTransport(tls, proxy, _IDLE_SECONDS),
            event_hooks={"response": [decode, _prepare_refusal]},
        ),
    )


def _tls(settings: Settings, outbound: Outbound) -> ssl.SSLContext | None:
    urls = (settings.upstream_url, outbound.proxy or "")
    if not any(url.lower().startswith("https:") for url in urls):
        return None  # loading the system's authorities takes time
    if outbound.cafile or outbound.capath:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(outbound.cafile, outbound.capath)
        return context
    return httpx2.create_ssl_context(trust_env=False)


def _prepare_refusal(response: httpx2.Response) -> None:
    """Read the beginning of a refusal, in place of the SDK, which would read it to its end."""
    if response.has_redirect_location:
        # The client reads it although it is not to follow it, and fails if it is no address.
        response.extensions[LOCATION] = response.headers.pop("Location")
    if response.is_success:
        return
    content = b""
    # Decompressed piece by piece: a little may become a thousand times as much.
    coding = response.headers.pop("Content-Encoding", "identity")
    assert isinstance(response.stream, httpx2.SyncByteStream)
    plain = httpx2.Response(
        response.status_code, headers={"Content-Encoding": coding}, stream=response.stream
    )
    try:
        with contextlib.closing(plain), ReadDeadline(response, _REFUSAL_SECONDS):
            for piece in plain.iter_bytes():
                content += piece[: _REFUSAL_BYTES - len(content)]
                if len(content) == _REFUSAL_BYTES:
                    break
    except httpx2.HTTPError as error:
        # The status of an error stays what it is without its message.
        log.warning("the upstream's error can't be read: %s", type(error).__name__)
    response.stream = httpx2.ByteStream(content)
