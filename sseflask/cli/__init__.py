"""The command line. Each command is a module, imported when it is used."""

from __future__ import annotations

import importlib
import importlib.util
from importlib.metadata import version
from typing import Any

import click

from sseflask.errors import ConfigError

_SETTINGS = ("pydantic_settings", "idna")
#: The commands, and the libraries of each that do not come with Flask.
_COMMANDS = {
    "serve": ("gunicorn", "gevent", "flask_cors", "jwt", "openai", *_SETTINGS),
    "tail": ("httpx2",),
    "publish": ("httpx2", *_SETTINGS),
    "run": ("httpx2",),
    "token": ("jwt", *_SETTINGS),
    "migrate": ("redis", *_SETTINGS),
    "config": _SETTINGS,
    "doctor": ("httpx2",),
}


def _uninstalled(name: str, missing: str) -> click.Command:
    """A command whose libraries are missing: it says which, with any arguments."""

    def refuse() -> None:
        raise click.ClickException(
            f"sseflask {name} needs libraries that are not installed: {missing}. "
            "Install it with: pip install 'sseflask[service]'"
        )

    return click.Command(
        name,
        callback=refuse,
        help=f"(not installed: {missing})",
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
        add_help_option=False,
    )


class _Commands(click.Group):
    """Ends with one line and status 2 if the value of a setting is not allowed.

    Ctrl-C ends a command silently, with the status that shells use for it.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's interface
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        needed = _COMMANDS.get(cmd_name)
        if needed is None:
            return None
        missing = [name for name in needed if importlib.util.find_spec(name) is None]
        if missing:
            return _uninstalled(cmd_name, ", ".join(missing))
        command: click.Command = importlib.import_module(f"sseflask.cli.{cmd_name}").command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            click.echo(str(error), err=True)
            ctx.exit(2)
        except KeyboardInterrupt:
            click.echo(err=True)
            ctx.exit(130)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("sseflask"), prog_name="sseflask", message="%(prog)s %(version)s")
def main() -> None:
    """Server-Sent Events for Flask: the service, and tools for any event stream.

    The service is configured in the environment; docs/configuration.md lists the settings.
    """
