"""What any JSON may cost, and that others get turns meanwhile."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from sseflask.errors import Failure
from sseflask.web.bounded_json import MOST_DIGITS, MOST_VALUES, bounded_json

VALUES: list[Any] = [
    None,
    {"a": [1, 2.5, {"b": "x,[{"}], "c\\": '"', '"': "\\", "": ""},
    ['\\"', '\\\\"', ",[{" * 40_000, "é,", "\u2222,", "😀,", "\\" * 70_001 + '"'],
    "," * (2 * MOST_VALUES),
    ["word," * 30_000] * 5,
    ['{"a": [1, "\\\\"]}' * 20_000],
    ["x" * n + '"' for n in range(65_530, 65_540)] + ["," * (2 * MOST_VALUES)],
]


class TimeSlice:
    """The time between two turns of others."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("ascii", [True, False])
def test_it_reads_as_json_does(value: Any, ascii: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii)
    assert bounded_json(text, TimeSlice()) == bounded_json(text.encode(), TimeSlice()) == value
    assert bounded_json(text.encode("utf-16"), TimeSlice()) == value


@pytest.mark.parametrize(
    ("begin", "each", "marks", "end"),
    [
        ("[", "1,", 1, "1]"),
        ("[", "[],", 2, "1]"),
        ("[", "[[{}]],", 4, "1]"),
        ('{"a":[', '{"\\\\":"\\"x,"},', 2, "1]}"),
        ("[", '"[\\"",', 1, "1]"),
        ("[", '",\\\\","\\"\\\\",', 2, "1]"),
        ("[", " \n\t0 ,", 1, "1]"),
        ("{", '"n":0,', 1, '"n":1}'),
    ],
)
def test_so_many_values_and_no_more(begin: str, each: str, marks: int, end: str) -> None:
    """Each follows a comma or a bracket; what strings hold does not count."""
    bounded_json(begin + each * ((MOST_VALUES - 4) // marks) + end, TimeSlice())
    with pytest.raises(Failure) as refused:
        bounded_json(begin + each * (MOST_VALUES // marks + 1) + end, TimeSlice())
    assert (refused.value.status, refused.value.code) == (413, "too_many_values")


def test_a_number_has_so_many_digits() -> None:
    for sign in ("", "-"):
        most = sign + "9" * (MOST_DIGITS - len(sign))
        assert bounded_json(f"[{most}]", TimeSlice()) == [int(most)]
        with pytest.raises(Failure) as refused:
            bounded_json(f"[{most}99]", TimeSlice())
        assert (refused.value.status, refused.value.code) == (400, "invalid_json")
    assert bounded_json("[1e400, 0." + "1" * 10_000 + "]", TimeSlice())[0] == float("inf")


def test_what_is_no_json_takes_no_longer() -> None:
    """As many strings as can be, without a comma between them."""
    with pytest.raises(Failure) as refused:
        bounded_json("," * (MOST_VALUES + 1) + '"' * 32_000_000, TimeSlice())
    assert refused.value.code == "too_many_values"
    for text in ("", "{", "[" * MOST_VALUES, '"' * 250_000, "[1,]"):
        with pytest.raises((ValueError, RecursionError)):
            bounded_json(text, TimeSlice())


@pytest.mark.parametrize("unit", ["ab", '\\"', "\\\\", ",", "[{", "\u2222", " "])
def test_others_have_turns(unit: str) -> None:
    """Between pieces of 64 KiB, whatever is in them."""
    inside = unit * (1_000_000 // len(unit))
    turns = TimeSlice()
    bounded_json(f'["{inside}", "{"," * (MOST_VALUES + 1)}"]', turns)
    assert turns.count > 1_000_000 / 65_536


def test_what_is_read_takes_little_time() -> None:
    """Of the processor; a quick one takes a tenth of it."""
    deep = "[" + ",".join(["[" * 400 + "]" * 400] * (MOST_VALUES // 401)) + "]"
    keys = "{" + ",".join(f'"{n:x}":1' for n in range(MOST_VALUES - 1)) + "}"
    digits = "[" + ",".join(["9" * MOST_DIGITS] * (MOST_VALUES - 1)) + "]"
    for text in (deep, keys, digits):
        began = time.thread_time()
        bounded_json(text, TimeSlice())
        assert time.thread_time() - began < 0.5
