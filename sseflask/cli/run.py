"""``sseflask run``: a completion in the terminal."""

from __future__ import annotations

import json
import sys
import uuid
from typing import Any

import click
import httpx2

from sseflask.cli.client import at, connected, error_of, url_of, with_credentials
from sseflask.cli.following import Reopening, Stream

__all__ = ["command"]


@click.command("run")
@click.argument("url", callback=url_of)
@click.argument("message", default="-")
@click.option("--system", metavar="TEXT", help="The system prompt.")
@click.option("--model", metavar="NAME", help="The model; the server's unless said.")
@with_credentials
def command(
    url: httpx2.URL,
    message: str,
    system: str | None,
    model: str | None,
    token: str | None,
    headers: list[tuple[str, str]],
) -> None:
    """Ask the service at URL, and print the answer as it comes. Ctrl-C stops it.

    Without MESSAGE, or with -, it is read from the standard input. Reasoning goes to the standard
    error. A connection that breaks off is opened again where it was.
    """
    if message == "-":
        message = sys.stdin.read()
    asked: dict[str, Any] = {"user_message": message, "format": "events"}
    if system is not None:
        asked["system_prompt"] = system
    if model is not None:
        asked["model"] = model
    with connected(token, headers) as client:
        key = {"Idempotency-Key": uuid.uuid4().hex}
        target = at(url, "/sse/openai_out")
        stream = Stream(client, "POST", target, headers=key, body=asked)
        try:
            _show(stream)
        except KeyboardInterrupt:
            run = stream.response.headers.get("X-Run-Id") if stream.response else None
            if run:
                answer = client.delete(at(url, f"/runs/{run}"))
                click.echo(err=True)
                _say("stopped" if answer.status_code == 200 else error_of(answer))
            raise


def _show(stream: Stream) -> None:
    thinking = False
    for item in stream:
        if isinstance(item, Reopening):
            _say(f"{item.cause or 'the connection ended'}; opened again in {item.seconds:.1f} s")
            continue
        said = json.loads(item.data)
        if item.event == "reasoning":
            thinking = True
            click.secho(said["text"], nl=False, err=True, dim=True)
        elif item.event == "text":
            if thinking:
                thinking = False
                click.echo(err=True)
            click.echo(said["text"], nl=False)
        elif item.event == "tool_call" and said.get("name"):
            _say(f"calls {said['name']}")
        elif item.event == "done":
            click.echo()
            if said.get("finish_reason") != "stop":
                _say(f"ended: {said.get('finish_reason')}")


def _say(text: str) -> None:
    click.secho(f"-- {text}", err=True, dim=True)
