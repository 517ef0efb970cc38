"""``sseflask token``: a token for a client of the service."""

from __future__ import annotations

import re
import time
from secrets import token_hex

import click

from sseflask import config
from sseflask.auth.tokens import sign
from sseflask.errors import ChannelError, ConfigError
from sseflask.store.names import Pattern

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


@click.command("token")
@click.option(
    "--sub",
    "subject",
    metavar="NAME",
    help="The name of the token's user, to whom its completions belong. --complete needs it; "
    "otherwise a random name is the default.",
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
def command(
    subject: str | None, publish: list[str], subscribe: list[str], complete: bool, ttl: int
) -> None:
    """Print a token, signed with the newest secret of SSEFLASK_SECRET.

    Send it as "Authorization: Bearer TOKEN", or as access_token in the query, or trade it for a
    cookie with POST /session. Quote patterns, or the shell expands them as file names.
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
        raise click.UsageError("Completions belong to a user: --complete needs --sub NAME.")
    rights = {"publish": publish, "subscribe": subscribe, "complete": complete}
    given = {name: right for name, right in rights.items() if right}
    if not given:
        raise click.UsageError(
            "The token would carry no right: give --publish, --subscribe or --complete."
        )
    subject = subject or f"token-{token_hex(4)}"
    click.echo(sign(secrets[0], subject, time.time() + ttl, **given))
