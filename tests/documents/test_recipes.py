"""The recipes show the examples as they are.

`python -m tests.documents.test_recipes` puts them in anew.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "docs" / "recipes.md"
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

_INCLUDED = re.compile(r"<!-- (examples/\w+\.py) -->\n(?:```python\n.*?```\n)?", re.DOTALL)


def with_code(text: str) -> str:
    """The recipes with the code of each example behind its name."""

    def block(found: re.Match[str]) -> str:
        code = (ROOT / found[1]).read_text(encoding="utf-8")
        return f"<!-- {found[1]} -->\n```python\n{code}```\n"

    return _INCLUDED.sub(block, text)


def test_they_show_the_examples_as_they_are() -> None:
    text = RECIPES.read_text(encoding="utf-8")
    assert text == with_code(text), "python -m tests.documents.test_recipes puts them in anew"


def test_each_example_is_in_one_recipe() -> None:
    shown = _INCLUDED.findall(RECIPES.read_text(encoding="utf-8"))
    assert sorted(shown) == [f"examples/{each.name}" for each in EXAMPLES]


def test_each_example_is_run_by_a_test() -> None:
    tests = "".join(
        each.read_text(encoding="utf-8")
        for each in (ROOT / "tests/live").rglob("test_examples*.py")
    )
    assert [each.stem for each in EXAMPLES if f'"{each.stem}"' not in tests] == []


if __name__ == "__main__":
    RECIPES.write_text(with_code(RECIPES.read_text(encoding="utf-8")), encoding="utf-8")
