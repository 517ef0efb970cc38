"""OpenAI's official client, without redirections, cookies, retries and endless refusals."""

from __future__ import annotations

import contextlib
import logging
import ssl
import zlib
from collections.abc import Iterable, Iterator
from functools import partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, cast
from urllib.parse import urlsplit

import httpx2
import openai

from sseflask.completions.sdk_failures import failure_of
from sseflask.completions.upstream_errors import LOCATION
from sseflask.completions.upstream_transport import ReadDeadline, UpstreamTransport
from sseflask.config import Settings
from sseflask.outbound import Outbound

log = logging.getLogger(__name__)

_CONNECT_SECONDS = 5.0
#: Seconds for which an idle connection may be used again. Servers keep them for 5 s and more. If a
#: server closes one while a request is on its way, it may have begun to work on the request.
_IDLE_SECONDS = 4.0
#: Bytes that are read of the body of an error or a redirection, and seconds for it.
_REFUSAL_BYTES, _REFUSAL_SECONDS = 262_144, 10.0

#: RFC 9110, section 8.4.1.3: x-gzip is gzip.
_CODINGS = ("gzip", "x-gzip", "deflate")
#: Bytes that are decompressed at once: a little may become a thousand times as much.
_MAX_PIECE = 262_144
_GZIP_MAGIC, _GZIP_OR_ZLIB = b"\x1f\x8b", zlib.MAX_WBITS | 32


class OpenAIClient:
    """The SDK's client of the upstream. Thread-safe; for one process, as it has connections.

    It follows no redirection, keeps no cookie, repeats no request.
    """

    def __init__(self, settings: Settings, outbound: Outbound) -> None:
        url = urlsplit(settings.upstream_url)
        self._query = f"?{url.query}" if url.query else ""
        self._secrets = settings.confidential
        key = settings.openai_api_key
        tls = _tls(settings, outbound)
        proxy = None
        if outbound.proxy:
            over_tls = outbound.proxy.lower().startswith("https:")
            proxy = httpx2.Proxy(outbound.proxy, ssl_context=tls if over_tls else None)
        self._client = openai.OpenAI(
            # Servers of one's own often want no key, the SDK always does.
            api_key=key.get_secret_value() if key else "none",
            base_url=url._replace(query="").geturl(),
            # A retry would bill twice, and the client can repeat a request itself.
            max_retries=0,
            # Compressed streams arrive in lumps and cost time at both ends.
            default_headers={"Accept-Encoding": "identity"},
            http_client=httpx2.Client(
                timeout=httpx2.Timeout(settings.upstream_timeout, connect=_CONNECT_SECONDS),
                # One user's prompt is not sent wherever an upstream points.
                follow_redirects=False,
                # One user's cookies are not sent with another's request.
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
                trust_env=False,
                transport=UpstreamTransport(tls, proxy, _IDLE_SECONDS),
                event_hooks={"response": [_decode, _prepare_refusal]},
            ),
        )

    def send(self, path: str, body: bytes | None, seconds: float | None = None) -> httpx2.Response:
        """Send a POST of JSON, or a GET, and block until the head of the response is there.

        Args:
            seconds: how long this may take, by default the upstream's timeout.

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
        except openai.APIError as error:
            raise failure_of(error, self._secrets) from error
        return cast(httpx2.Response, response)

    def close(self) -> None:
        self._client.close()


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
        # The client reads it although it must not follow it, and fails if it is no address.
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
        # An error keeps its status, though its message is lost.
        log.warning("the upstream's error can't be read: %s", type(error).__name__)
    response.stream = httpx2.ByteStream(content)


def _decode(response: httpx2.Response) -> None:
    """Decompress a response's body as it is read, if all its codings are gzip or deflate.

    Some upstreams compress although they were asked not to. httpx knows these codings too, but ends
    with the first of several members (RFC 1952, section 2.2), which are one body for `fetch` and
    for curl. Other codings are left to it. Reading what can't be decompressed raises
    `httpx2.DecodingError`.
    """
    given = response.headers.get("Content-Encoding", "").lower().split(",")
    codings = [name for each in given if (name := each.strip()) not in ("", "identity")]
    if isinstance(response.stream, httpx2.SyncByteStream) and set(codings) <= set(_CODINGS):
        if codings:
            response.stream = _Decoded(response.stream, codings[::-1])
        response.headers.pop("Content-Encoding", None)


class _Decoded(httpx2.SyncByteStream):
    def __init__(self, stream: httpx2.SyncByteStream, codings: list[str]) -> None:
        self._stream = stream
        self._codings = codings

    def __iter__(self) -> Iterator[bytes]:
        pieces: Iterable[bytes] = self._stream
        for coding in self._codings:
            pieces = _inflate(pieces, coding)
        yield from pieces

    def close(self) -> None:
        self._stream.close()


def _inflate(pieces: Iterable[bytes], coding: str) -> Iterator[bytes]:
    member: Any = None
    first, more, pending = True, False, b""
    for piece in pieces:
        pending += piece
        while more or len(pending) >= (2 if member is None else 1):
            if member is None:
                # RFC 1950, section 2.2.
                is_zlib = pending[0] & 0x0F == 8 and (pending[0] << 8 | pending[1]) % 31 == 0
                begins = is_zlib or pending.startswith(_GZIP_MAGIC)
                if not first and not begins:
                    return  # filled up, with zeros for example, which all readers pass over
                # Some servers send the bare format as deflate (RFC 9110, section 8.4.1.2).
                bare = coding == "deflate" and not begins
                member = zlib.decompressobj(-zlib.MAX_WBITS if bare else _GZIP_OR_ZLIB)
                first = False
            try:
                data = member.decompress(pending, _MAX_PIECE)
            except zlib.error as error:
                raise httpx2.DecodingError(str(error)) from error
            pending = member.unused_data if member.eof else member.unconsumed_tail
            more = len(data) == _MAX_PIECE and not member.eof  # perhaps, without a byte of input
            if member.eof:
                member = None
            if data:
                yield data
