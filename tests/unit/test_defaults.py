from __future__ import annotations

import re
from pathlib import Path

from sseflask.config import load
from sseflask.defaults import LIBRARY, setting
from tests.service import environment

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_the_service_has_the_library_s_defaults() -> None:
    with environment():
        assert load().of_library() == LIBRARY


def test_the_document_names_what_the_library_reads() -> None:
    section = DOCUMENTATION.read_text(encoding="utf-8").partition("## In the library\n")[2]
    assert set(re.findall(r"`(SSEFLASK_[A-Z_]+)`", section)) == set(LIBRARY)


def test_an_application_s_own_value_wins() -> None:
    assert setting({}, "SSEFLASK_HISTORY_EVENTS") == 1000
    assert setting({"SSEFLASK_HISTORY_EVENTS": 5}, "SSEFLASK_HISTORY_EVENTS") == 5
