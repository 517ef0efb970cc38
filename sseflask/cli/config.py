"""``sseflask config``: the settings, and the source of each."""

from __future__ import annotations

import os

import click
from pydantic import SecretStr

from sseflask import config, platforms


@click.command("config")
@click.option("--all", "everything", is_flag=True, help="Print the meaning of each setting too.")
def command(everything: bool) -> None:
    """Print each setting, its value and its source; secrets are masked.

    The source is the environment, the platform (see SSEFLASK_PLATFORM) or the default.

    Run it in the environment of the process that starts the service. A value that is not allowed is
    an error, as it is for the service.
    """
    settings = config.load()
    rows = config.rows()
    source_of = sources()
    width = max(len(row.name) for row in rows)
    for row in rows:
        value = _shown(settings, row.name)
        click.echo(f"{row.name:{width}}  {value:20}  {source_of[row.name]}")
        if everything:
            click.secho(click.wrap_text(row.meaning, 100, "    ", "    "), dim=True)
    unknown = config.unknown_names()
    for name, closest in unknown.items():
        click.secho(f"{name} is not a setting; did you mean {closest}?", fg="yellow", err=True)


def _shown(settings: config.Settings, name: str) -> str:
    """The value of a setting as in the environment; confidential parts are ``***``."""
    field = next(
        key for key, each in config.Settings.model_fields.items() if each.validation_alias == name
    )
    value = getattr(settings, field)
    several = value if isinstance(value, tuple) else (value,)
    text = "" if value is None else ",".join(map(_text, several))
    return f"{text.partition('?')[0]}?***" if "?" in text and "://" in text else text


def _text(value: object) -> str:
    if isinstance(value, SecretStr):
        return "***"
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def sources() -> dict[str, str]:
    """The source of each setting's value: the environment, the platform or the default."""
    platform = platforms.detect(os.environ)
    variable = platforms.detected_by(os.environ)
    fitting = platforms.settings_for(platform) if platform else {}
    found = {}
    for name, _, _ in config.rows():
        if os.environ.get(name):
            found[name] = "environment"
        elif name == platforms.SETTING and variable:
            found[name] = variable
        elif name in fitting and platform is not None:
            found[name] = f"platform {platform.name}"
        else:
            found[name] = "default"
    return found
