"""``sseflask run``: a completion in the terminal."""

from __future__ import annotations

import json
import sys
import uuid
from typing import Any

import click
import httpx2

from sseflask.cli.client import Reconnect, ReconnectingStream, error_of, route, url_of, with_client


@click.command("run")
@click.argument("url", callback=url_of)
@click.argument("message", default="-")
@click.option("--system", metavar="TEXT", help="The system prompt.")
@click.option("--model", metavar="NAME", help="The model; by default the server's.")
@with_client
def command(
    url: httpx2.URL, message: str, system: str | None, model: str | None, client: httpx2.Client
) -> None:
    """Send MESSAGE to the service at URL, and print the answer as it comes. Ctrl-C stops it.

    Without MESSAGE, or with -, it is read from the standard input. Reasoning goes to the standard
    error. A lost connection is opened again, and the answer goes on.
    """
    if message == "-":
        message = sys.stdin.read()
    body: dict[str, Any] = {"user_message": message, "format": "events"}
    if system is not None:
        body["system_prompt"] = system
    if model is not None:
        body["model"] = model
    key = {"Idempotency-Key": uuid.uuid4().hex}
    target = route(url, "/sse/openai_out")
    stream = ReconnectingStream(client, "POST", target, headers=key, body=body)
    try:
        _show(stream)
    except KeyboardInterrupt:
        run = stream.response.headers.get("X-Run-Id") if stream.response else None
        if run:
            answer = client.delete(route(url, f"/runs/{run}"))
            click.echo(err=True)
            _say("stopped" if answer.status_code == 200 else error_of(answer))
        raise


def _show(stream: ReconnectingStream) -> None:
    thinking = False
    for item in stream:
        if isinstance(item, Reconnect):
            _say(f"{item.cause or 'the connection ended'}; opened again in {item.seconds:.1f} s")
            continue
        data = json.loads(item.data)
        if item.event == "reasoning":
            thinking = True
            click.secho(data["text"], nl=False, err=True, dim=True)
        elif item.event == "text":
            if thinking:
                thinking = False
                click.echo(err=True)
            click.echo(data["text"], nl=False)
        elif item.event == "tool_call" and data.get("name"):
            _say(f"calls {data['name']}")
        elif item.event == "done":
            click.echo()
            if data.get("finish_reason") != "stop":
                _say(f"ended: {data.get('finish_reason')}")


def _say(text: str) -> None:
    click.secho(f"-- {text}", err=True, dim=True)
