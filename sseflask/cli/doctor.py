"""``sseflask doctor``: whether a deployment lets streams through."""

from __future__ import annotations

import click
import httpx2

from sseflask.cli.client import connected, told, url_of, with_credentials
from sseflask.cli.examining import EXAMINATIONS, Grade, Verdict

__all__ = ["command"]

_MARKS: dict[Grade, tuple[str, str]] = {
    "good": ("ok  ", "green"),
    "doubtful": ("hm  ", "yellow"),
    "bad": ("BAD ", "red"),
}


@click.command("doctor")
@click.argument("url", callback=url_of)
@click.option("--quick", is_flag=True, help="Without the heartbeat, which is waited for.")
@with_credentials
def command(
    url: httpx2.URL, quick: bool, token: str | None, headers: list[tuple[str, str]]
) -> None:
    """Examine the service at URL from outside, proxies and all.

    It uses the counter, which is open to all, and stores nothing. Ends with status 1 if something
    is bad.
    """
    bad = False
    with connected(token, headers) as client:
        for name, slow, examine in EXAMINATIONS:
            if slow and quick:
                continue
            try:
                verdicts = list(examine(client, url))
            except httpx2.ConnectError:
                raise
            except (httpx2.HTTPError, ValueError, KeyError) as error:
                reason = told(error) if isinstance(error, httpx2.HTTPError) else repr(error)
                verdicts = [Verdict("bad", reason, "this is not what the service sends")]
            for verdict in verdicts:
                mark, color = _MARKS[verdict.grade]
                click.echo(f"{click.style(mark, fg=color)} {name:22} {verdict.found}")
                if verdict.mend:
                    click.echo(f"{'':28}{verdict.mend}")
                bad = bad or verdict.grade == "bad"
    if bad:
        raise SystemExit(1)
