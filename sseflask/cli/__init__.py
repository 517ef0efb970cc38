"""The command line. Each command is a module of its own, imported when it is asked for."""

from __future__ import annotations

import importlib
import importlib.util
from importlib.metadata import version
from typing import Any

import click

from sseflask.errors import ConfigError

__all__ = ["main"]

_SETTINGS = ("pydantic_settings", "idna")
#: The commands, and what each imports that Flask does not bring.
_COMMANDS = {
    "serve": ("gunicorn", "gevent", "flask_cors", "jwt", "openai", *_SETTINGS),
    "tail": ("httpx2",),
    "publish": ("httpx2",),
    "run": ("httpx2",),
    "token": ("jwt", *_SETTINGS),
    "config": _SETTINGS,
    "doctor": ("httpx2",),
}


class _Uninstalled(click.Command):
    """A command whose libraries are not there: it says which, whatever it is asked."""

    def __init__(self, name: str, missing: str) -> None:
        super().__init__(
            name,
            help=f"(not installed: {missing})",
            context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
            add_help_option=False,
        )
        self._missing = missing

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ARG002  # click's interface
        raise click.ClickException(
            f"sseflask {self.name} needs what is not installed: {self._missing}. "
            "Install it with: pip install 'sseflask[service]'"
        )


class _Commands(click.Group):
    """Ends with one line and status 2 when a setting has a value that is not allowed.

    Ctrl-C ends a command without a word, with the status that shells give it.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's interface
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        needed = _COMMANDS.get(cmd_name)
        if needed is None:
            return None
        missing = [name for name in needed if importlib.util.find_spec(name) is None]
        if missing:
            return _Uninstalled(cmd_name, ", ".join(missing))
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

    The service is set in the environment; docs/configuration.md lists the names.
    """
