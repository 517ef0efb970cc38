"""The command line: ``sseflask serve`` and ``sseflask token``."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path
from secrets import token_hex
from typing import Any, NoReturn

import click

from sseflask import config
from sseflask.auth import sign
from sseflask.channels.names import Pattern
from sseflask.errors import ChannelError, ConfigError

__all__ = ["main"]

#: Seconds for which streams may go on at a stop in development: their ends are for deploys.
_DEVELOPMENT_GRACE = 2

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"([1-9][0-9]{0,8})([smhd])\Z", re.ASCII)


def _seconds(context: click.Context, option: click.Parameter, value: str) -> int:
    found = _DURATION.match(value)
    if found is None:
        raise click.BadParameter(
            f"{value!r} is not a duration: write 90s, 15m, 12h or 30d", context, option
        )
    return int(found[1]) * _UNITS[found[2]]


def _patterns(
    context: click.Context, option: click.Parameter, values: tuple[str, ...]
) -> list[str]:
    try:
        return [str(Pattern.parse(value)) for value in values]
    except ChannelError as error:
        raise click.BadParameter(str(error), context, option) from None


class _Commands(click.Group):
    """Ends with one line and status 2 when a setting has a value that is not allowed."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            click.echo(str(error), err=True)
            ctx.exit(2)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Server-Sent Events for Flask: the service.

    Everything is set in the environment; docs/configuration.md lists the names.
    """


@main.command()
@click.option(
    "--dev",
    is_flag=True,
    help="Development mode: listen on 127.0.0.1 only, and trust requests from this machine, so "
    "that no token is needed. Stops at once.",
)
def serve(dev: bool) -> NoReturn:
    """Start the service with gunicorn, in the foreground.

    Listens on port PORT of all addresses, or on 127.0.0.1:8000 when PORT is not set, with
    WEB_CONCURRENCY worker processes. Further gunicorn options go into GUNICORN_CMD_ARGS.
    Ctrl-C or SIGTERM ends it.
    """
    settings = config.load()
    command = [sys.executable, "-m", "gunicorn"]
    command += ["-c", str(Path(__file__).with_name("gunicorn_conf.py"))]
    if dev:
        command += ["-b", f"127.0.0.1:{settings.port or 8000}"]
    command.append(f"sseflask.app:create_app(development={dev})")
    # gunicorn reads this one itself while it is imported, and would fail on an empty value.
    environment = {**os.environ, "WEB_CONCURRENCY": str(settings.web_concurrency)}
    if dev:
        # In front of the operator's own, which win.
        own = environment.get("GUNICORN_CMD_ARGS", "")
        environment["GUNICORN_CMD_ARGS"] = f"--graceful-timeout {_DEVELOPMENT_GRACE} {own}".strip()
    os.execve(command[0], command, environment)


@main.command()
@click.option(
    "--sub",
    "subject",
    metavar="NAME",
    help="Whom the token is for. --complete needs it: what is run belongs to its name; otherwise "
    "a random one is made up.",
)
@click.option(
    "--publish",
    multiple=True,
    callback=_patterns,
    metavar="PATTERN",
    help="May publish to these channels: a name, orders.* or orders.**; can be repeated.",
)
@click.option(
    "--subscribe",
    multiple=True,
    callback=_patterns,
    metavar="PATTERN",
    help="May subscribe to these channels; can be repeated. '**' is all of them.",
)
@click.option("--complete", is_flag=True, help="May run completions on the real upstream.")
@click.option(
    "--ttl",
    callback=_seconds,
    metavar="DURATION",
    default="1h",
    show_default=True,
    help="How long the token is valid: 90s, 15m, 12h, 30d. Streams end when their token does.",
)
def token(
    subject: str | None,
    publish: list[str],
    subscribe: list[str],
    complete: bool,
    ttl: int,
) -> None:
    """Print a token, signed with the newest secret of SSEFLASK_SECRET.

    Send it as "Authorization: Bearer TOKEN", or as access_token in the query, or trade it for a
    cookie with POST /session. Quote patterns, or the shell will take them for files.
    """
    secrets = config.load().secrets
    if not secrets:
        raise ConfigError(
            "SSEFLASK_SECRET is not set: set it to the server's, or make a new one with: "
            'python -c "import secrets; print(secrets.token_urlsafe(32))"'
        )
    if subject is not None and not subject.strip():
        raise click.BadParameter("it must not be empty", param_hint="--sub")
    if subject is None and complete:
        raise click.UsageError("What is run belongs to somebody: --complete needs --sub NAME.")
    rights = {"publish": publish, "subscribe": subscribe, "complete": complete}
    given = {name: right for name, right in rights.items() if right}
    if not given:
        raise click.UsageError(
            "The token would carry no right: give --publish, --subscribe or --complete."
        )
    subject = subject or f"token-{token_hex(4)}"
    click.echo(sign(secrets[0], subject, time.time() + ttl, **given))
