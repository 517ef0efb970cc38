"""The files of examples/, each started by a command that its own docstring shows."""

from __future__ import annotations

import ast
import contextlib
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.live.kit.servers import ROOT, TRACEBACK, Server, free_port, running

EXAMPLES = ROOT / "examples"
SCRIPTS = Path(sys.executable).parent

#: What the command of a server is given beside what is documented.
_MORE = {
    "flask": ["--port", "{port}"],
    "gunicorn": ["--no-control-socket", "--log-level", "info", "-b", "127.0.0.1:{port}"],
    "uvicorn": ["--port", "{port}"],
}


def documented(name: str, program: str, *options: str) -> tuple[dict[str, str], list[str]]:
    """What an example says of a program: the variables in front of it, and its arguments.

    Args:
        name: the example's.
        program: the first word of the command.
        options: words that the command has, where there are several of the program.
    """
    text = ast.get_docstring(ast.parse((EXAMPLES / f"{name}.py").read_text()))
    assert text
    for line in text.splitlines():
        if not line.startswith("    "):
            continue
        words = shlex.split(line)
        variables = dict(word.split("=", 1) for word in words if "=" in word.partition("/")[0])
        arguments = words[len(variables) :]
        if arguments[0] == program and set(options) <= set(arguments):
            return variables, [str(SCRIPTS / program), *arguments[1:]]
    raise AssertionError(f"the docstring of {name}.py has no {program} {' '.join(options)}")


def unpack(directory: Path) -> Path:
    """A copy of examples/, with stores of its own. Returns where to run them."""
    ignore = shutil.ignore_patterns("instance")
    shutil.copytree(EXAMPLES, directory / "examples", ignore=ignore, dirs_exist_ok=True)
    return directory


@contextlib.contextmanager
def example(
    name: str,
    program: str,
    directory: Path,
    *,
    application: str | None = None,
    changes: Mapping[str, str] | None = None,
    ready: str = "/",
    port: int | None = None,
    errors: tuple[str, ...] = (),
) -> Iterator[Server]:
    """An example as it is documented; its log is clean afterwards.

    Args:
        name: of examples/.
        program: which of the documented commands starts it.
        directory: for a copy of the examples and what they store.
        application: what gunicorn serves in the example's place.
        changes: further environment variables.
        ready: what it answers with 200 when it is up.
        port: where it listens; a free one unless a test starts it twice at one address.
        errors: how tracebacks may end that are there on purpose.
    """
    port = port or free_port()
    variables, command = documented(name, program, *(["run"] if program == "flask" else []))
    command += [word.format(port=port) for word in _MORE[program]]
    if application:
        command = [application if word == f"examples.{name}:app" else word for word in command]
    # Only what is installed can be imported, and what is beside them.
    variables = {**variables, "PYTHONPATH": "", **(changes or {})}
    cwd = unpack(directory)
    kind = f"{program}-{name}"
    with running(kind, command, port, directory / "log", variables, ready, cwd) as server:
        yield server
    log = server.log()
    for found in TRACEBACK.finditer(log):
        assert found["error"].startswith(errors), found[0]
    assert "Warning" not in log, log
