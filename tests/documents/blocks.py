"""The blocks of code in README and docs: what they are, and which of them are run elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flask import Flask

__all__ = [
    "DOCUMENTS",
    "ELSEWHERE",
    "GIVEN",
    "LANGUAGES",
    "NOT_RUN",
    "PYTHON",
    "ROOT",
    "SHELL",
    "Block",
    "Step",
    "blocks",
]

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
]

PYTHON = {"python"}
#: `sh` is a script that is copied, and the `text` block below it what it prints; `console` shows a
#: session, with a prompt before each command.
SHELL = {"sh", "console"}
LANGUAGES = PYTHON | SHELL | {"html", "ini", "js", "json", "nginx", "text", "toml", "ts", "yaml"}

#: Blocks that a test of their own runs, by document and beginning.
ELSEWHERE: dict[tuple[str, str], str] = {
    ("README.md", 'pip install ".[gevent]"'): "tests/live/service/test_fresh_clone.py::"
    "test_make_serve_answers_curl",
    (
        "README.md",
        "make serve",
    ): "tests/live/service/test_fresh_clone.py::test_make_serve_answers_curl",
    ("README.md", "gunicorn clock:app"): "tests/live/streams/test_readme.py::"
    "test_its_line_keeps_what_the_table_promises",
    ("docs/recipes.md", '@app.get("/orders/naive")'): "tests/live/streams/test_examples.py::"
    "test_a_stream_leaves_the_pool_to_others",
    ("docs/quick-start.md", "make serve"): "tests/live/service/test_fresh_clone.py::"
    "test_make_serve_answers_curl",
    ("docs/quick-start.md", "from openai import"): "tests/live/service/test_documents.py::"
    "test_the_openai_client",
}

#: Blocks that can't be run by a test, by document and beginning, and why.
NOT_RUN: dict[tuple[str, str], str] = {
    ("docs/deploy.md", "heroku create"): "it needs an account",
    ("docs/deploy.md", "fly apps create"): "it needs an account",
    ("docs/deploy.md", "python3 -c"): "it needs an account",
    ("docs/deploy.md", "railway variables"): "it needs an account",
    ("docs/deploy.md", "apt-get install nginx"): "it changes the machine as root",
    ("docs/deploy.md", "export SSEFLASK_SECRET"): "it needs Docker",
    ("docs/deploy.md", "docker build"): "it needs Docker",
    (
        "docs/deploy.md",
        "export REDIS_URL=rediss://user:password@redis.example.org:6380/0\nsseflask",
    ): ("it needs a service's files; tests/live/service/test_migrate.py moves some"),
    ("docs/deploy.md", "sseflask token --sub prometheus"): "it writes to /etc",
    ("CONTRIBUTING.md", "python -m benchmarks"): "an hour of measuring",
    ("CONTRIBUTING.md", "python -m tests.live.page.picture"): "it writes docs, for two minutes",
}

#: What the Python of a document takes to be there.
GIVEN: dict[str, dict[str, object]] = {
    "README.md": {
        "save": lambda order: order["number"],
        "write": lambda _number: "It was a dark night.",
    },
    "docs/deploy.md": {"app": Flask("mine")},
    "docs/durable.md": {"write": lambda _number: "It was a dark night."},
}

_FENCE = re.compile(r"^( *)```([^\n`]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^\$ ((?:.+\\\n)*.+)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)


@dataclass(frozen=True)
class Step:
    """A command or script, and what is shown of what it prints; ``None`` if nothing is shown."""

    command: str
    output: str | None


@dataclass(frozen=True)
class Block:
    """A block of code.

    Args:
        document: its file, from the root.
        line: where its code begins.
        language: as the document names it.
        text: the code.
        output: the text of a `text` block right below it, which is what it prints.
    """

    document: str
    line: int
    language: str
    text: str
    output: str | None

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"

    def is_example(self) -> bool:
        """Whether it is a file of examples/, all of which have tests of their own."""
        files = (ROOT / "examples").glob("**/*.py")
        return any(self.text.strip() == each.read_text().strip() for each in files)

    def steps(self) -> Iterator[Step]:
        """What a shell is given."""
        if self.language == "console":
            for command, output in _COMMAND.findall(self.text):
                yield Step(command, output if output.strip() else None)
        else:
            yield Step(self.text, self.output)


def blocks(document: Path) -> list[Block]:
    """The blocks of a document, in their order."""
    text = document.read_text(encoding="utf-8")
    name = document.relative_to(ROOT).as_posix()
    found = list(_FENCE.finditer(text))
    made = []
    for fence, below in zip(found, [*found, None][1:], strict=True):
        output = None
        if below and below[2] == "text" and not text[fence.end() : below.start()].strip():
            output = below[3]
        line = text.count("\n", 0, fence.start(3)) + 1
        made.append(Block(name, line, fence[2].strip(), fence[3], output))
    return made
