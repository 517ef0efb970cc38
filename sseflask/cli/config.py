"""``sseflask config``: the settings, and the source of each."""

from __future__ import annotations

import click

from sseflask import config


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
