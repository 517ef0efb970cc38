"""``sseflask config``: what is set, and where it comes from."""

from __future__ import annotations

import click

from sseflask import config

__all__ = ["command"]


@click.command("config")
@click.option("--all", "everything", is_flag=True, help="With what each setting means.")
def command(everything: bool) -> None:
    """Print each setting, its value and where it came from; secrets are masked.

    That is the environment, the platform (see SSEFLASK_PLATFORM) or the default.

    The service is configured by the environment of the process that starts it, so run this in the
    same one. A value that is not allowed is an error, as it is for the service.
    """
    settings = config.load()
    rows = config.rows()
    sources = config.sources()
    width = max(len(row.name) for row in rows)
    for row in rows:
        value = config.shown(settings, row.name)
        click.echo(f"{row.name:{width}}  {value:20}  {sources[row.name]}")
        if everything:
            click.secho(click.wrap_text(row.meaning, 100, "    ", "    "), dim=True)
    unknown = config.unknown_names()
    for name, closest in unknown.items():
        click.secho(f"{name} is not a setting; did you mean {closest}?", fg="yellow", err=True)
