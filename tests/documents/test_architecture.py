"""What the document of the architecture shows and names is there."""

from __future__ import annotations

import ast
import re

import pytest

from tests.documents.architecture import (
    BOXES,
    PACKAGE,
    PICTURE,
    ROOT,
    arrows,
    draw,
    members,
)

_DOCUMENTS = ("docs/architecture.md", "CONTRIBUTING.md")

#: The module and the function of each row of a table that names one.
_FUNCTIONS = [
    each
    for document in _DOCUMENTS
    for each in re.findall(
        r"^\|.*? `([\w/]+\.py)` \| `([\w.]+)` \|",
        (ROOT / document).read_text(encoding="utf-8"),
        re.MULTILINE,
    )
]


def _places(document: str) -> list[str]:
    """The modules and packages that a document names, by their paths below ``sseflask``."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(r"`(?:sseflask/)?((?:\w+/)*\w+(?:\.py|/))`", text)


def test_each_module_is_in_one_box() -> None:
    boxed = [member for box in BOXES for member in box.members or (box.name,)]
    assert sorted(boxed) == sorted(members())


def test_the_picture_shows_the_imports_as_they_are() -> None:
    assert PICTURE.read_text(encoding="utf-8") == draw(), (
        "python -m tests.documents.architecture draws it"
    )


def test_imports_point_downwards() -> None:
    upwards = [(box.name, target.name) for box, target in arrows() if target.row <= box.row]
    assert upwards == []


def test_the_paths_are_followed_through_their_functions() -> None:
    assert len(_FUNCTIONS) > 30


@pytest.mark.parametrize(("module", "name"), _FUNCTIONS, ids=str)
def test_a_function_is_in_its_module(module: str, name: str) -> None:
    nodes = ast.parse((PACKAGE / module).read_text(encoding="utf-8")).body
    for part in name.split("."):
        (found,) = (
            node
            for node in nodes
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == part
        )
        nodes = found.body


@pytest.mark.parametrize("document", _DOCUMENTS)
def test_the_modules_that_are_named_exist(document: str) -> None:
    places = _places(document)
    assert places
    assert [
        each for each in places if not ((PACKAGE / each).exists() or (ROOT / each).exists())
    ] == []
