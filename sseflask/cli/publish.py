"""``sseflask publish``: an event for a channel."""

from __future__ import annotations

import json
import sys
import uuid
from urllib.parse import quote

import click
import httpx2

from sseflask.cli.client import error_of, route, url_of, with_client
from sseflask.defaults import ADDRESS


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
@click.option("--event", metavar="TYPE", help="The event's type; by default message.")
@click.option("--json", "as_json", is_flag=True, help="DATA is JSON, not a text.")
@with_client
def command(
    channel: str,
    data: str,
    url: httpx2.URL,
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
    published: dict[str, object] = {"data": data}
    if as_json:
        try:
            published["data"] = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise click.BadParameter(f"it is not JSON: {error}", param_hint="DATA") from None
    if event is not None:
        published["event"] = event
    target = route(url, f"/channels/{quote(channel, safe='')}")
    key = {"Idempotency-Key": uuid.uuid4().hex}
    try:
        response = client.post(target, json=published, headers=key)
    except httpx2.TransportError:
        response = client.post(target, json=published, headers=key)
    if response.status_code != 201:
        raise click.ClickException(error_of(response))
    click.echo(response.json()["id"])
