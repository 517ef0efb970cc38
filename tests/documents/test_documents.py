"""The blocks of the documents, and their links, are as the lists say."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

from tests.documents.blocks import (
    DOCUMENTS,
    ELSEWHERE,
    LANGUAGES,
    NOT_RUN,
    PYTHON,
    ROOT,
    SHELL,
    blocks,
)

_LINK = re.compile(r"(?<!`)\[[^\]]*\]\(([^)\s]+)\)|(?:src|srcset|href)=\"([^\"]+)\"")


def _prose(document: Path) -> str:
    text = document.read_text(encoding="utf-8")
    return re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)


def _anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", _prose(document), re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", each) for each in headings)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in plain}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_each_block_says_what_it_is(document: Path) -> None:
    for block in blocks(document):
        assert block.language in LANGUAGES, f"{block}: {block.language or 'nothing'}"
        if block.language == "sh":
            assert not block.text.startswith("$"), f"{block}: a prompt in what is copied"


def test_what_is_not_run_is_there_once() -> None:
    assert not set(ELSEWHERE) & set(NOT_RUN)
    found = [block for each in DOCUMENTS for block in blocks(each)]
    for document, beginning in [*ELSEWHERE, *NOT_RUN]:
        fitting = [
            block
            for block in found
            if block.document == document
            and block.language in PYTHON | SHELL
            and block.text.removeprefix("$ ").startswith(beginning)
        ]
        assert len(fitting) == 1, f"{document}: {beginning}"


def test_what_is_not_run_is_a_script_all_the_same() -> None:
    """At least a shell reads it without an error."""
    found = [block for each in DOCUMENTS for block in blocks(each) if block.language in SHELL]
    scripts = [step.command for block in found for step in block.steps()]
    assert len(scripts) > 30
    done = subprocess.run(
        ["bash", "-n"],
        input="\n".join(scripts),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_what_is_run_elsewhere_is_run_by_a_test() -> None:
    for place in ELSEWHERE.values():
        path, _, name = place.partition("::")
        source = ast.parse((ROOT / path).read_text())
        functions = [each.name for each in ast.walk(source) if isinstance(each, ast.FunctionDef)]
        assert name in functions, f"{path} has no {name}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for found in _LINK.finditer(_prose(document)):
        link = found[1] or found[2]
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), f"{document.name}: {link}"
        assert not anchor or anchor in _anchors(target), f"{document.name}: {link}"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200
