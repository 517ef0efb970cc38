"""``sseflask doctor``: whether a deployment delivers streams properly."""

from __future__ import annotations

import click
import httpx2

from sseflask.cli.checks import CHECKS, Grade, Result
from sseflask.cli.client import describe, url_of, with_client

_MARKS: dict[Grade, tuple[str, str]] = {
    "good": ("ok  ", "green"),
    "doubtful": ("hm  ", "yellow"),
    "bad": ("BAD ", "red"),
}


@click.command("doctor")
@click.argument("url", callback=url_of)
@click.option("--quick", is_flag=True, help="Without the heartbeat, which takes a minute.")
@with_client
def command(url: httpx2.URL, quick: bool, client: httpx2.Client) -> None:
    """Check the service at URL from outside, with all proxies.

    It uses the counter, which is open to all, and stores nothing. Ends with status 1 if a check
    fails.
    """
    bad = False
    for name, slow, check in CHECKS:
        if slow and quick:
            continue
        try:
            results = list(check(client, url))
        except httpx2.ConnectError:
            raise
        except (httpx2.HTTPError, ValueError, KeyError) as error:
            reason = describe(error) if isinstance(error, httpx2.HTTPError) else repr(error)
            results = [Result("bad", reason, "this is not what the service sends")]
        for result in results:
            mark, color = _MARKS[result.grade]
            click.echo(f"{click.style(mark, fg=color)} {name:22} {result.found}")
            if result.advice:
                click.echo(f"{'':28}{result.advice}")
            bad = bad or result.grade == "bad"
    if bad:
        raise SystemExit(1)
