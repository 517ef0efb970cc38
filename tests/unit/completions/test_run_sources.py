"""The names are there without the extra; what they need is named when they are called."""

from __future__ import annotations

from tests.processes import run_program

PROGRAM = """
import sys

for name in "openai", "httpx2", "pydantic_core":
    sys.modules[name] = None  # as if it were not installed

from flask import Flask
from sseflask import SSE, openai_chunks, openai_response, text_chunks

SSE(Flask("application"))
for call in (
    lambda: openai_chunks(object(), [], model="m"),
    lambda: openai_response(object(), "Hi", model="m"),
    lambda: text_chunks(["one"]),
):
    try:
        call()
    except ModuleNotFoundError as error:
        print(error)
"""


def test_without_the_extra() -> None:
    done = run_program(PROGRAM)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    for line in lines:
        assert line.startswith("completions need ")
        assert line.endswith(": pip install 'sseflask[openai]'")
