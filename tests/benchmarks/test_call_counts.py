"""The counts of the path scenario, of a process that makes a known number of calls."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.call_counts import VARIABLE, PythonCalls, counted_environment

PROGRAM = """
import sys
def function(): return len("")
sys.stdout.write("ready\\n"); sys.stdout.flush()
sys.stdin.readline()
for _ in range(1000): function()
sys.stdout.write("done\\n"); sys.stdout.flush()
sys.stdin.readline()
"""


def test_calls_are_counted_until_the_hook_is_taken_out() -> None:
    with counted_environment() as environment:
        with subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdin
            assert process.stdout
            calls = PythonCalls(Path(environment[VARIABLE]))
            assert process.stdout.readline() == "ready\n"
            before = calls.read()
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "done\n"
            made = calls.read() - before
            calls.stop()
        assert 1000 <= made.python < 1100
        assert 1000 <= made.builtin < 1100
