"""How another process finds out how to go on with a run."""

from __future__ import annotations

import functools
import math
import sys
from types import ModuleType
from typing import Any

import pytest
from itsdangerous import Signer

from sseflask.runs.run_result import RunEvent
from sseflask.runs.successor import Successor, last_event
from sseflask.runs.writer import Terms
from sseflask.store.run_api import Run

TERMS = Terms(5.0, math.inf, 60.0)


def resume(_run: str, _last: RunEvent | None) -> list[str]:
    return []


class Agent:
    @staticmethod
    def resume(_run: str, _last: RunEvent | None) -> list[str]:
        return []

    @classmethod
    def of_class(cls, _run: str, _last: RunEvent | None) -> list[str]:
        return []

    def of_instance(self, _run: str, _last: RunEvent | None) -> list[str]:
        return []


def original(_run: str, _last: RunEvent | None) -> list[str]:
    return []


original.__qualname__ = "decorated"  # as functools.wraps has it


def decorated(run: str, last: RunEvent | None) -> list[str]:
    return original(run, last)


@pytest.mark.parametrize("function", [resume, Agent.resume, decorated])
@pytest.mark.parametrize("secret", ["key", b"key", None])
def test_it_is_found_again(function: Any, secret: str | bytes | None) -> None:
    stored = Successor(function, TERMS).encode(secret)
    assert Successor.decode(stored, [secret]) == Successor(function, TERMS)


@pytest.mark.parametrize(
    "function",
    [
        lambda *_: [],
        original,
        functools.partial(resume),
        Agent.of_class,
        Agent().of_instance,
        Agent(),
        "tests.unit.runs.test_successor:resume",
    ],
)
def test_what_no_other_process_finds_is_refused(function: Any) -> None:
    with pytest.raises(TypeError, match="top level of a module"):
        Successor(function, TERMS).encode("key")


def test_a_function_in_a_function_is_refused() -> None:
    def inner(_run: str, _last: RunEvent | None) -> list[str]:
        return []

    with pytest.raises(TypeError, match="top level of a module"):
        Successor(inner, TERMS).encode("key")


def test_a_key_that_was_the_secret_before_still_counts() -> None:
    stored = Successor(resume, TERMS).encode("old")
    assert Successor.decode(stored, ["new", b"older", "old"]).function is resume
    with pytest.raises(LookupError, match="SECRET_KEY"):
        Successor.decode(stored, ["new"])
    with pytest.raises(LookupError, match="SECRET_KEY"):
        Successor.decode(stored, [None])


@pytest.mark.parametrize("stored", [b"", b"{}", b'{"function": "os:abort"}.x', b"\xff.\xff"])
def test_who_can_write_to_the_store_can_not_choose_the_function(stored: bytes) -> None:
    with pytest.raises(LookupError, match="SECRET_KEY"):
        Successor.decode(stored, ["key"])


def test_what_was_signed_for_another_purpose_does_not_count() -> None:
    stored = Successor(resume, TERMS).encode("key").rpartition(b".")[0]
    with pytest.raises(LookupError, match="SECRET_KEY"):
        Successor.decode(Signer("key").sign(stored), ["key"])


def test_a_function_or_a_module_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("module_of_a_successor")

    def going(_run: str, _last: RunEvent | None) -> list[str]:
        return []

    going.__module__, going.__qualname__ = module.__name__, "going"
    vars(module)["going"] = going
    monkeypatch.setitem(sys.modules, module.__name__, module)
    stored = Successor(going, TERMS).encode("key")
    assert Successor.decode(stored, ["key"]).function is going
    del vars(module)["going"]
    with pytest.raises(LookupError, match="module_of_a_successor:going"):
        Successor.decode(stored, ["key"])
    monkeypatch.delitem(sys.modules, module.__name__)
    with pytest.raises(LookupError, match="module_of_a_successor:going"):
        Successor.decode(stored, ["key"])


RUN = Run(1, "r", "items", 4)


def stored(*frames: bytes) -> Any:
    def read(after: int, limit: int) -> list[tuple[int, bytes]]:
        return list(enumerate(frames, 1))[after : after + limit]

    return read


def test_the_last_event_is_found_behind_comments() -> None:
    read = stored(b"data: a\n\n", b"event: e\ndata: b\n\n", b": c\n\n", b"retry: 5\n\n")
    assert last_event(RUN, read) == RunEvent("r.2", "e", "b")


def test_the_last_event_may_be_the_last_frame_and_the_first() -> None:
    assert last_event(RUN._replace(last=1), stored(b"data: a\n\n")) == RunEvent(
        "r.1", "message", "a"
    )
    both = stored(b"data: a\n\n", b"data: b\n\n")
    assert last_event(RUN._replace(last=2), both) == RunEvent("r.2", "message", "b")


def test_a_run_without_events_has_no_last_one() -> None:
    assert last_event(RUN._replace(last=0), stored()) is None
    assert last_event(RUN._replace(last=1), stored(b": c\n\n")) is None
