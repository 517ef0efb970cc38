"""What README shows of curl and of JavaScript and Python clients is what they do."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from sseflask.extension import channels_of
from sseflask.testing import open_stream
from tests.live.servers import ROOT, Server

README = (ROOT / "README.md").read_text(encoding="utf-8")
ADDRESS = "127.0.0.1:8000"

PYTHON = re.findall(r"```python\n(.+?)```", README, re.DOTALL)

_BLOCK = re.compile(r"```console\n(.+?)```", re.DOTALL)
_COMMAND = re.compile(r"^\$ ((?:.+\\\n)*.+)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
#: The ids of runs and of events in channels, which are others each time.
_ID = re.compile(r"[0-9a-f]{32}|k3v9m2xa-[0-9]+")


def examples(text: str) -> list[tuple[str, str]]:
    """The curl commands on this service, and what is printed below them."""
    return [
        (command, output)
        for block in _BLOCK.findall(text)
        for command, output in _COMMAND.findall(block)
        if command.startswith("curl") and ADDRESS in command and "Bearer" not in command
    ]


def pattern(output: str, known: dict[str, str]) -> tuple[re.Pattern[str], list[str]]:
    """What the output has to match, and the ids in it that are new, in their order.

    Three dots stand for anything, on a line of their own for any lines.
    """
    new: list[str] = []
    parts = []
    for line in output.rstrip("\n").split("\n"):
        if line == "...":
            parts.append(r"(?:.*\n)*?")
            continue
        escaped = re.escape(line).replace(re.escape("..."), ".*")
        for id in _ID.findall(line):
            if id in known:
                escaped = escaped.replace(re.escape(id), re.escape(known[id]))
            elif id in new:
                escaped = escaped.replace(re.escape(id), f"(?:\\{new.index(id) + 1})")
            else:
                new.append(id)
                escaped = escaped.replace(re.escape(id), r"([0-9a-z]+(?:-[0-9]+)?)")
        parts.append(escaped + r"\n")
    return re.compile("".join(parts)), new


def test_what_curl_prints(development: Server, tmp_path: Path) -> None:
    known: dict[str, str] = {}
    shown = examples(README)
    assert len(shown) > 10
    for command, output in shown:
        for id, actual in known.items():
            command = command.replace(id, actual)  # what is run
        command = command.replace(ADDRESS, f"127.0.0.1:{development.port}")
        command = command.replace("curl ", "curl -sS --max-time 3 ", 1)
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
            timeout=30,
        )
        if not output.strip():
            continue
        # A stream that goes on has heartbeats; headers end with CR LF; JSON lacks the newline.
        text = done.stdout.replace("\r\n", "\n").replace(": ping\n", "").rstrip("\n") + "\n"
        expected, new = pattern(output, known)
        found = expected.fullmatch(text)
        assert found, f"{command}\n{text}\n--- is not ---\n{output}"
        known.update(zip(new, found.groups(), strict=True))


def test_the_openai_client(development: Server, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = [each for each in PYTHON if "from openai import" in each]
    exec(code.replace(ADDRESS, f"127.0.0.1:{development.port}"), {})  # what README says
    run, text = capsys.readouterr().out.split("\n", 1)
    assert re.fullmatch(r"[0-9a-f]{32}", run)
    assert "Hello" in text


def test_the_library() -> None:
    """Its blocks one after the other, as a reader would put them together."""
    (clock,) = [each for each in PYTHON if "def clock" in each]
    (orders,) = [each for each in PYTHON if "def order()" in each]
    (tests,) = [each for each in PYTHON if "def test_clock" in each]
    names: dict[str, Any] = {"__name__": "readme", "save": lambda order: order["number"]}
    for code in (clock, orders, tests):
        exec(code, names)  # what README says
    names["test_clock"]()
    app = names["app"]
    app.testing = True
    with open_stream(app.test_client(), "/orders/events") as stream:
        assert app.test_client().post("/orders", json={"number": 7}).json == {"order": 7}
        (event,) = stream.read(1)
    assert (event.event, event.data) == ("new", '{"order":7}')
    channels_of(app).close()
