"""Commands run in the tests' own process."""

from __future__ import annotations

from click.testing import CliRunner, Result

from sseflask import cli
from tests.service import environment


def run(*arguments: str, **variables: str) -> Result:
    """A command and its arguments, with exactly these environment variables."""
    with environment(**variables):
        return CliRunner().invoke(cli.main, arguments)
