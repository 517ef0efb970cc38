"""``sseflask publish``: an event for a channel."""

from __future__ import annotations

import json
import sys
import uuid
from typing import Any
from urllib.parse import quote

import click
import httpx2
from flask import Flask

from sseflask.cli.client import error_of, route, url_of, with_client
from sseflask.config import load
from sseflask.defaults import ADDRESS
from sseflask.errors import Failure
from sseflask.extension import SSE, channels_of


@click.command("publish")
@click.argument("channel")
@click.argument("data")
@click.option(
    "--url",
    callback=url_of,
    default=f"http://{ADDRESS}",
    envvar="SSEFLASK_URL",
    show_default=True,
    help="The service. SSEFLASK_URL in the environment sets it too.",
)
@click.option(
    "--direct",
    is_flag=True,
    help="Publish into the server of REDIS_URL itself, without the service and a token. The "
    "environment has the service's settings.",
)
@click.option("--event", metavar="TYPE", help="The event's type; by default message.")
@click.option("--json", "as_json", is_flag=True, help="DATA is JSON, not a text.")
@with_client
def command(
    channel: str,
    data: str,
    url: httpx2.URL,
    direct: bool,
    event: str | None,
    as_json: bool,
    client: httpx2.Client,
) -> None:
    """Publish DATA to CHANNEL, and print the event's id. - reads it from the standard input.

    After a lost connection the request is repeated once. Its key keeps the event from being stored
    twice.
    """
    if data == "-":
        data = sys.stdin.read()
    value: Any = data
    if as_json:
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise click.BadParameter(f"it is not JSON: {error}", param_hint="DATA") from None
    if direct:
        click.echo(_publish_directly(channel, value, event))
        return
    published = {"data": value, **({} if event is None else {"event": event})}
    target = route(url, f"/channels/{quote(channel, safe='')}")
    key = {"Idempotency-Key": uuid.uuid4().hex}
    try:
        response = client.post(target, json=published, headers=key)
    except httpx2.TransportError:
        response = client.post(target, json=published, headers=key)
    if response.status_code != 201:
        raise click.ClickException(error_of(response))
    click.echo(response.json()["id"])


def _publish_directly(channel: str, value: Any, event: str | None) -> str:
    """Publish by the library, as any application with this store would."""
    settings = load()
    if settings.store is None or settings.channel_log is not None:
        raise click.UsageError(
            "--direct needs the service's store: set REDIS_URL, and unset SSEFLASK_CHANNEL_LOG"
        )
    app = Flask("sseflask")
    app.config.update(settings.of_library())
    sse = SSE(app)
    try:
        return sse.publish(channel, value, event)
    except (ValueError, Failure) as error:
        raise click.ClickException(str(error)) from None
    finally:
        channels_of(app).close()
