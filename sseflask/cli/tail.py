"""``sseflask tail``: prints any event stream."""

from __future__ import annotations

import json
import time
from datetime import datetime

import click
import httpx2

from sseflask.cli.client import Reconnect, ReconnectingStream, url_of, with_client
from sseflask.event import MessageEvent


@click.command("tail")
@click.argument("url", callback=url_of)
@click.option(
    "--last-event-id",
    "cursor",
    default="",
    metavar="ID",
    help="Begin after this event; earliest begins with the oldest stored event of a channel.",
)
@click.option("--json", "as_json", is_flag=True, help="Print each event as one line of JSON.")
@with_client
def command(url: httpx2.URL, cursor: str, as_json: bool, client: httpx2.Client) -> None:
    """Print the events of a stream, such as http://127.0.0.1:8000/channels/news.

    Each with its time, the seconds since the previous one, and its id. A stream whose connection is
    lost is opened again after its last id. Ends with the stream, or with Ctrl-C.
    """
    before = time.monotonic()
    for item in ReconnectingStream(client, "GET", url, cursor=cursor, until_done=False):
        if isinstance(item, Reconnect):
            click.secho(_about(item), err=True, dim=True)
            continue
        now = time.monotonic()
        click.echo(_as_json(item) if as_json else _as_text(item, now - before))
        before = now


def _as_json(event: MessageEvent) -> str:
    at = datetime.now().astimezone().isoformat(timespec="milliseconds")
    fields = {"time": at, "id": event.last_event_id, "event": event.event, "data": event.data}
    return json.dumps(fields, ensure_ascii=False)


def _as_text(event: MessageEvent, gap: float) -> str:
    head = f"{datetime.now():%H:%M:%S.%f}"[:-3] + f" {gap:+8.3f}  "
    kind = "" if event.event == "message" else f"{event.event}  "
    identity = f"{event.last_event_id}  " if event.last_event_id else ""
    first, *more = event.data.split("\n")
    lines = [head + click.style(identity, dim=True) + click.style(kind, bold=True) + first]
    return "\n".join([*lines, *(" " * len(head) + line for line in more)])


def _about(reconnect: Reconnect) -> str:
    where = f" after {reconnect.cursor}" if reconnect.cursor else ""
    cause = reconnect.cause or "the stream ended"
    return f"-- {cause}; opened again{where} in {reconnect.seconds:.1f} s"
