"""What the document of the architecture shows and names is there."""

from __future__ import annotations

from tests.documents.architecture import BOXES, PICTURE, draw, members


def test_each_module_is_in_one_box() -> None:
    boxed = [member for box in BOXES for member in box.members or (box.name,)]
    assert sorted(boxed) == sorted(members())


def test_the_picture_shows_the_imports_as_they_are() -> None:
    assert PICTURE.read_text(encoding="utf-8") == draw(), (
        "python -m tests.documents.architecture draws it"
    )
