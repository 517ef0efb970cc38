"""The HTTP client of the commands: its options, and its errors as one line."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Iterator
from typing import Any

import click
import httpx2

_CONNECT_SECONDS = 10.0
#: Seconds of silence after which a connection counts as lost: six default heartbeats.
_SILENCE = 90.0


def url_of(context: click.Context, option: click.Parameter, value: str) -> httpx2.URL:
    """The address of a server or of one of its routes; a callback of click."""
    try:
        url = httpx2.URL(value if "://" in value else f"http://{value}")
    except httpx2.InvalidURL as error:
        raise click.BadParameter(f"{value!r} is not an address: {error}", context, option) from None
    if url.scheme not in ("http", "https") or not url.host:
        raise click.BadParameter(
            f"{value!r} is not an address: write http:// or https:// and a host", context, option
        )
    return url


def _header(
    context: click.Context, option: click.Parameter, values: tuple[str, ...]
) -> list[tuple[str, str]]:
    headers = []
    for value in values:
        name, colon, text = value.partition(":")
        if not colon or not name.strip() or not name.isascii():
            raise click.BadParameter(
                f"{value!r} is not a header: write 'Name: value'", context, option
            )
        headers.append((name.strip(), text.strip()))
    return headers


def with_client(command: Callable[..., object]) -> Callable[..., None]:
    """Give a command the options ``--token`` and ``--header``, and a client that sends them."""

    @click.option(
        "--token",
        envvar="SSEFLASK_TOKEN",
        metavar="TOKEN",
        help="Sent as Authorization: Bearer. Default: SSEFLASK_TOKEN in the environment.",
    )
    @click.option(
        "--header",
        "-H",
        "headers",
        multiple=True,
        callback=_header,
        metavar="'NAME: VALUE'",
        help="A header to send; can be repeated.",
    )
    @functools.wraps(command)
    def with_options(token: str | None, headers: list[tuple[str, str]], **options: Any) -> None:
        with connected(token, headers) as client:
            command(client=client, **options)

    return with_options


@contextlib.contextmanager
def connected(token: str | None, headers: list[tuple[str, str]]) -> Iterator[httpx2.Client]:
    """A client with these credentials; an error of the network ends the command with one line.

    Raises:
        click.ClickException: the server can't be reached, or the connection was lost.
    """
    sent = [("User-Agent", "sseflask"), *headers]
    if token:
        sent.append(("Authorization", f"Bearer {token}"))
    timeout = httpx2.Timeout(_SILENCE, connect=_CONNECT_SECONDS)
    try:
        with httpx2.Client(
            headers=httpx2.Headers(sent, encoding="utf-8"), timeout=timeout, follow_redirects=True
        ) as client:
            yield client
    except httpx2.HTTPError as error:
        raise click.ClickException(describe(error)) from error


def describe(error: httpx2.HTTPError) -> str:
    """An error of a connection, as one line."""
    reason = str(error) or type(error).__name__
    with contextlib.suppress(RuntimeError):  # an error without a request
        return f"{error.request.url.copy_with(query=None)}: {reason}"
    return reason


def route(url: httpx2.URL, path: str) -> httpx2.URL:
    """The address of a route of the service at ``url``."""
    return url.copy_with(path=url.path.rstrip("/") + path)


def error_in(text: str) -> tuple[str, str | None]:
    """The message and the code of an error of this service; of another text the text itself."""
    try:
        error = json.loads(text)["error"]
        return str(error["message"]), error.get("code")
    except (ValueError, KeyError, TypeError, AttributeError):
        return " ".join(text.split())[:200], None


def error_of(response: httpx2.Response) -> str:
    """The error of a response as one line; of a 5xx with the request's id, which is in the log.

    The body must have been read.
    """
    message, code = error_in(response.text)
    status = f"{response.status_code} {response.reason_phrase}".strip()
    line = f"{status}{f' ({code})' if code else ''}: {message}" if message else status
    id = response.headers.get("X-Request-Id", "")[:128]
    return f"{line} [request {id}]" if response.status_code >= 500 and id else line
