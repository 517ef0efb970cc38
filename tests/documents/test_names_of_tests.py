"""The tests of a module are found by its name."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE, UNIT = ROOT / "sseflask", ROOT / "tests" / "unit"
MODULES = [each.relative_to(PACKAGE) for each in sorted(PACKAGE.rglob("*.py"))]
TESTS = [each.relative_to(UNIT) for each in sorted(UNIT.rglob("test_*.py"))]


def name_of(module: Path) -> str:
    """What a module is called; the module of a package itself, as the package is."""
    return (PACKAGE / module).parent.name if module.stem == "__init__" else module.stem


def module_of(test: Path) -> Path | None:
    """The module that a test file, `test_<module>[_<aspect>].py`, is named after.

    Of several whose names fit it is the one with the longest name.
    """
    about = test.stem.removeprefix("test_") + "_"
    fitting = [
        each
        for each in MODULES
        if each.parent == test.parent and about.startswith(name_of(each) + "_")
    ]
    return max(fitting, key=lambda each: len(name_of(each)), default=None)


def test_each_test_file_is_named_after_a_module_of_the_same_package() -> None:
    assert [str(each) for each in TESTS if module_of(each) is None] == []
