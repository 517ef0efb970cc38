"""The table "What a stranger can use up": what it names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from gunicorn.config import KNOWN_SETTINGS

from sseflask import config

ROOT = Path(__file__).parents[2]
_HEADING = "## What a stranger can use up\n"


def _rows() -> list[list[str]]:
    section = (ROOT / "docs" / "deploy.md").read_text().partition(_HEADING)[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    assert lines[0] == "| resource | bound | setting | test |"
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


ROWS = _rows()


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_row_names_settings_and_tests_that_exist(row: list[str]) -> None:
    _, bound, setting, test = row
    assert bound
    known = {each.name for each in config.rows()} | {each.name for each in KNOWN_SETTINGS}
    named = re.findall(r"`([^`]+)`", setting)
    assert named or setting == "none"
    assert set(named) <= known
    places = re.findall(r"`([^`]+)`", test)
    assert places
    for place in places:
        path, _, name = place.partition("::")
        source = ast.parse((ROOT / path).read_text())
        functions = [each.name for each in ast.walk(source) if isinstance(each, ast.FunctionDef)]
        assert not name or name in functions, f"{path} has no {name}"
