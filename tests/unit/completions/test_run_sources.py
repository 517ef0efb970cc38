"""The names are there without the extra; what they need is named when they are called."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    for line in lines:
        assert line.startswith("completions need ")
        assert line.endswith(": pip install 'sseflask[openai]'")
