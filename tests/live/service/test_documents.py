"""Each Python and shell block of README and docs is run, and prints what is shown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from sseflask.extension import channels_of, runs_of
from sseflask.testing import open_stream
from tests.documents.blocks import (
    DOCUMENTS,
    ELSEWHERE,
    GIVEN,
    NOT_RUN,
    PYTHON,
    ROOT,
    SHELL,
    Block,
    blocks,
)
from tests.live.kit.connection import fetch
from tests.live.kit.servers import Server
from tests.live.kit.services import SECRET, service
from tests.live.kit.shell import Shell

ADDRESS = "127.0.0.1:8000"

#: What a checkout has for the commands of the documents.
CHECKOUT = (
    *("LICENSE", "Makefile", "Procfile", "README.md", "pyproject.toml", "requirements.txt"),
    *("setup.cfg", "sseflask", "wsgi.py"),
)

#: The ids of runs and of events in channels, which are others each time.
_ID = re.compile(r"[0-9a-f]{32}|k3v9m2xa-[0-9]+")
#: What `sseflask tail` begins a line with.
_TIMES = re.compile(r"\d\d:\d\d:\d\d\.\d{3} +\+\d+\.\d{3}")
#: A secret that a document makes is not the server's.
_MADE_SECRET = re.compile(r"^(export SSEFLASK_SECRET=.+)$", re.MULTILINE)


def to_run(document: Path, languages: set[str]) -> list[Block]:
    """The blocks of a document that are run here."""
    elsewhere = [
        beginning
        for name, beginning in [*ELSEWHERE, *NOT_RUN]
        if name == document.relative_to(ROOT).as_posix()
    ]
    return [
        block
        for block in blocks(document)
        if block.language in languages
        and not block.is_example()
        and not block.text.removeprefix("$ ").startswith(tuple(elsewhere))
    ]


WITH_SHELL = [each for each in DOCUMENTS if to_run(each, SHELL)]
WITH_PYTHON = [each for each in DOCUMENTS if to_run(each, PYTHON)]


@pytest.fixture(scope="module")
def documented(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The service in development mode with the demo model, and with a secret for tokens."""
    settings = {"SSEFLASK_SECRET": SECRET}
    with service(tmp_path_factory.mktemp("documented"), settings=settings) as started:
        # Each document finds a file of channels, whichever comes first.
        assert fetch(started, "/channels/documents", method="POST", body=b"begun").status == 201
        yield started


@pytest.fixture
def checkout(tmp_path: Path, documented: Server) -> Path:
    """A directory in which the commands find what they would find in a checkout that is served."""
    (tmp_path / "channels.sqlite3").symlink_to(documented.directory / "channels.sqlite")
    for each in CHECKOUT:
        (tmp_path / each).symlink_to(ROOT / each)
    return tmp_path


def pattern(output: str, known: dict[str, str]) -> tuple[re.Pattern[str], list[str]]:
    """What the output has to match, and the ids in it that are new, in their order.

    Three dots stand for anything, on a line of their own for any lines.
    """
    new: list[str] = []
    parts = []
    for line in _trimmed(output).splitlines():
        if line == "...":
            parts.append(r"(?:.*\n)*?")
            continue
        escaped = re.escape(_TIMES.sub("\ue000", line)).replace(re.escape("..."), ".*")
        escaped = escaped.replace("\ue000", _TIMES.pattern)
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


def _trimmed(text: str) -> str:
    """Without the spaces that a document can't have at the ends of lines."""
    return "\n".join(line.rstrip() for line in text.rstrip().split("\n")) + "\n"


@pytest.mark.parametrize("document", WITH_SHELL, ids=lambda path: path.name)
def test_shell(document: Path, documented: Server, checkout: Path) -> None:
    known: dict[str, str] = {}
    steps = [step for block in to_run(document, SHELL) for step in block.steps()]
    assert steps
    settings = {"SSEFLASK_SECRET": SECRET, "THE_SECRET": SECRET}
    with Shell(checkout, settings) as shell:
        for step in steps:
            command = _MADE_SECRET.sub(r"\1\nexport SSEFLASK_SECRET=$THE_SECRET", step.command)
            for id, actual in known.items():
                command = command.replace(id, actual)
            printed = shell.run(command.replace(ADDRESS, f"127.0.0.1:{documented.port}"))
            if step.output is None:
                continue
            # A stream that goes on has heartbeats; headers end with CR LF; JSON lacks the newline.
            text = _trimmed(printed.replace("\r\n", "\n").replace(": ping\n", ""))
            expected, new = pattern(step.output, known)
            found = expected.fullmatch(text)
            assert found, f"{command}\n{text}\n--- is not ---\n{step.output}"
            known.update(zip(new, found.groups(), strict=True))


@pytest.mark.parametrize("document", WITH_PYTHON, ids=lambda path: path.name)
def test_python(
    document: Path, documented: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its blocks one after the other, as a reader would put them together."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("prometheus_client.REGISTRY", CollectorRegistry())
    name = document.relative_to(ROOT).as_posix()
    names: dict[str, Any] = {"__name__": document.stem, **GIVEN.get(name, {})}
    for block in to_run(document, PYTHON):
        code = block.text.replace(ADDRESS, f"127.0.0.1:{documented.port}")
        exec(compile("\n" * (block.line - 1) + code, name, "exec"), names)  # what it says


def test_the_openai_client(documented: Server, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = [
        each.text
        for each in blocks(ROOT / "docs" / "quick-start.md")
        if each.language == "python" and "from openai import" in each.text
    ]
    exec(code.replace(ADDRESS, f"127.0.0.1:{documented.port}"), {})  # what it says
    run, text = capsys.readouterr().out.split("\n", 1)
    assert re.fullmatch(r"[0-9a-f]{32}", run)
    assert "Hello" in text


def test_the_library() -> None:
    """README's blocks do what is said of them."""
    names: dict[str, Any] = {"__name__": "readme", **GIVEN["README.md"]}
    for block in to_run(ROOT / "README.md", PYTHON):
        exec(block.text, names)  # what it says
    names["test_clock"]()
    app = names["app"]
    app.testing = True
    assert '"result":{"chapters":3}' in app.test_client().get("/report").text
    with open_stream(app.test_client(), "/orders/events") as stream:
        assert app.test_client().post("/orders", json={"number": 7}).json == {"order": 7}
        (event,) = stream.read(1)
    assert (event.event, event.data) == ("new", '{"order":7}')
    channels_of(app).close()
    runs_of(app).close()
