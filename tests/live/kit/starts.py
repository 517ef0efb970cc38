"""Starts a program again and again, and imports what they all need only once.

A program of the tests: it reads lines of JSON, `[module, arguments, environment, file]`, and runs
`python -m module arguments` in a process forked from this one, whose output goes into the file. It
answers each with a line, the exit status.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import sys

#: What both ways of starting the service import before they look at its settings. Not gunicorn,
#: which reads its own from the environment while it is imported.
SHARED = "sseflask.cli"


def _become(module: str, arguments: list[str], environment: dict[str, str], file: str) -> None:
    output = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    os.close(output)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def main() -> None:
    importlib.import_module(SHARED)
    for line in sys.stdin:
        child = os.fork()
        if not child:
            # What is raised now ends the process as it would end the program's own.
            return _become(*json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    return None


if __name__ == "__main__":
    main()
