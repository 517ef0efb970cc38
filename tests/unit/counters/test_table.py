"""Memory that workers share: who owns a slot, what it holds, and what a death leaves."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from sseflask.counters import table as module
from sseflask.counters.table import Slot, Table
from tests.processes import ROOT

#: A worker that owns the given slot, prints a line, and writes the same number everywhere.
WORKER = """
import sys
from sseflask.counters.table import Table

table = Table(2, 50, int(sys.argv[1]))
before = table.own(int(sys.argv[2]))
table.write(int(sys.argv[2]), 1.0, [1, 1], [count + 1 for count in before])
print("ready", flush=True)
if sys.argv[3] == "waits":
    sys.stdin.read()
number = 2
while sys.argv[3] == "writes":
    table.write(int(sys.argv[2]), float(number), [number] * 2, [number] * 50)
    number += 1
"""


class Worker:
    """Stands for a worker in the process that forks."""


@pytest.fixture
def table() -> Table:
    return Table(2, 50)


@contextmanager
def running(table: Table, number: int, doing: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", WORKER, str(table.descriptor), str(number), doing],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=[table.descriptor],
        cwd=ROOT,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        try:
            yield child
        finally:
            child.kill()


def taken(table: Table, owner: object) -> int:
    number = table.take(owner)
    assert number is not None
    return number


def only(table: Table) -> Slot:
    (slot,) = table.read()
    return slot


def test_a_slot_is_nobody_s_before_its_worker_begins(table: Table) -> None:
    assert table.read() == []
    owner, other = Worker(), Worker()
    assert taken(table, owner) == 0
    assert only(table) == Slot(0, 0, 0.0, [0, 0], [0] * 50)
    assert taken(table, other) == 1


def test_its_worker_s_numbers_are_read(table: Table) -> None:
    owner = Worker()
    number = taken(table, owner)
    assert table.own(number) == [0] * 50
    table.write(number, 12.345, [1, 2], range(50))
    assert only(table) == Slot(0, os.getpid(), 12.345, [1, 2], list(range(50)))
    table.see(number, 13.0)
    assert only(table).seen == 13.0


def test_what_was_counted_outlives_a_worker_that_is_killed(table: Table) -> None:
    owner, other = Worker(), Worker()
    number = taken(table, owner)
    with running(table, number, "waits") as child:
        assert (only(table).pid, only(table).gauges) == (child.pid, [1, 1])
        child.kill()
        child.wait()
        assert (only(table).pid, only(table).counters) == (0, [1] * 50)
    assert taken(table, other) == number, "it is free again"
    with running(table, number, "waits") as child:
        assert (only(table).pid, only(table).counters) == (child.pid, [2] * 50), "it counts on"


def test_a_slot_whose_worker_never_began_is_free_when_that_is_gone(table: Table) -> None:
    owner, other, third, fourth = Worker(), Worker(), Worker(), Worker()
    assert (taken(table, owner), taken(table, other)) == (0, 1)
    del owner
    assert taken(table, third) == 0
    table.release(other)
    assert taken(table, fourth) == 1


def test_there_may_be_no_room(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLOTS", 1)
    owner = Worker()
    taken(table, owner)
    assert table.take(Worker()) is None


class Interrupted(Exception):
    """Something happens in the middle of a write or a read."""


class Words:
    """The words of a table, which are read and written one at a time.

    Args:
        words: the table's own.
        steps: words until ``then``, which is called once.
    """

    def __init__(self, words: Any, steps: int, then: Callable[[], object]) -> None:
        self._words = words
        self._steps = steps
        self._then = then

    def _step(self) -> None:
        self._steps -= 1
        if self._steps == -1:
            self._then()

    def __getitem__(self, place: Any) -> Any:
        if not isinstance(place, slice):
            self._step()
            return self._words[place]
        read = array("q")
        for each in range(place.start, place.stop):
            self._step()
            read.append(self._words[each])
        return read

    def __setitem__(self, place: Any, value: Any) -> None:
        if not isinstance(place, slice):
            self._step()
            self._words[place] = value
            return
        for each, number in zip(range(place.start, place.stop), value, strict=True):
            self._step()
            self._words[each] = number

    @property
    def over(self) -> bool:
        """Whether there were fewer steps."""
        return self._steps >= 0


def interrupt() -> None:
    raise Interrupted


def test_a_writer_that_stands_still_anywhere_is_read_as_before_or_after(table: Table) -> None:
    """Whether it has died or has lost the processor: no reader waits, none reads a half."""
    other = Table(2, 50, table.descriptor)
    owner = Worker()
    number = taken(table, owner)
    before = table.own(number)
    seen: list[int] = []
    for steps in itertools.count():
        table.write(number, 1.0, [1, 1], [7] * 50)
        own = table._numbers
        table._numbers = words = Words(own, steps, interrupt)  # type: ignore[assignment]
        with contextlib.suppress(Interrupted):
            table.write(number, 2.0, [2, 2], [8] * 50)
        table._numbers = own
        slot = only(other)
        assert (slot.gauges, slot.counters) in (([1, 1], [7] * 50), ([2, 2], [8] * 50))
        seen.append(slot.counters[0])
        assert other.own(number) == slot.counters, "its next owner counts on"
        assert only(table).gauges == [0, 0]
        if words.over:
            break
    assert before == [0] * 50
    assert seen == [7] * (len(seen) - 1) + [8]
    assert len(seen) > 52, "it was interrupted at each word"


@pytest.mark.parametrize("writes", [1, 2, 3])
def test_what_is_written_during_a_read_is_read_whole(table: Table, writes: int) -> None:
    owner = Worker()
    number = taken(table, owner)
    table.own(number)
    other = Table(2, 50, table.descriptor)
    own = other._numbers
    count = 0

    def write() -> None:
        nonlocal count
        for _ in range(writes):
            count += 1
            table.write(number, 1.0, [count] * 2, [count] * 50)

    for steps in itertools.count():
        write()
        before = count
        other._numbers = words = Words(own, steps, write)  # type: ignore[assignment]
        slot = only(other)
        if words.over:
            break
        (value,) = {*slot.gauges, *slot.counters}
        assert value in (before, count)
    assert steps > 52, "it was interrupted at each word"


def test_what_is_read_is_of_one_moment(table: Table) -> None:
    owner = Worker()
    number = taken(table, owner)
    with running(table, number, "writes"):
        found: set[int] = set()
        end = time.monotonic() + 60
        while len(found) < 200:
            slot = only(table)
            (value,) = {*slot.gauges, *slot.counters}
            found.add(value)
            assert time.monotonic() < end


def test_a_number_is_claimed_once(table: Table) -> None:
    other = Table(2, 50, table.descriptor)
    assert [table.claim(5), other.claim(5), other.claim(6), table.claim(5)] == [
        *(True, False),
        *(True, False),
    ]
