"""A table of numbers in memory that the workers of one server share.

Each worker has a slot, which it alone writes. Its counters never fall: a worker that gets the slot
of a dead one counts on from there. So nothing has to be added up when a worker dies, however it
dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import weakref
from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple

#: The most workers; memory is used only for those that exist.
SLOTS = 4096

#: The version of the layout: another number if words get another meaning.
LAYOUT = 2

#: The words of a slot: the number of writes, the owner's process id (negative: the master's, which
#: has reserved it for a child that has not begun), the time of the last write. Two copies of the
#: numbers follow.
_WRITES, _PID, _SEEN, _FIRST = 0, 1, 2, 3

_WORD = 8
_HEADER = 4096 // _WORD
_FREE = 0

#: Words of the header: the number of slots that were ever used, and the highest claimed number.
_USED, _CLAIMED = 0, 1


class Slot(NamedTuple):
    """A slot at one moment.

    Args:
        pid: its owner's process id; 0 if the owner is dead, or has not begun.
        seen: the monotonic time of the owner's last write.
        counters: what all its owners have counted.
    """

    number: int
    pid: int
    seen: float
    gauges: list[int]
    counters: list[int]


class Table:
    """Slots of 64-bit integers.

    Made by the process that forks the workers, which reserves and releases slots. A worker writes
    its own and reads all, without a lock. A write goes to the copy of the numbers that is not read;
    from then on readers take that copy. So no reader waits for a writer that stands still or dies.

    Args:
        gauges, counters: how many of them are in a slot.
        descriptor: an existing table's with the same shape; by default a new table is made.
    """

    def __init__(self, gauges: int, counters: int, descriptor: int | None = None) -> None:
        self._gauges = gauges
        self._copy = gauges + counters
        self._words = _FIRST + 2 * self._copy
        size = (_HEADER + SLOTS * self._words) * _WORD
        self.descriptor = _shared(size) if descriptor is None else descriptor
        self._map = mmap.mmap(self.descriptor, size)
        self._numbers = memoryview(self._map).cast("q")
        # The owners of reserved slots: a slot is free when its owner is garbage.
        self._taken: dict[int, weakref.ref[object]] = {}

    # -- the process that forks --------------------------------------------------------------------

    def take(self, owner: object) -> int | None:
        """Reserve a slot for a worker that is to be forked; ``None`` if all are in use.

        Args:
            owner: the worker in this process, which lives as long as the worker's process.
        """
        with self._locked():
            for number in range(SLOTS):
                if not self._in_use(number):
                    break
            else:
                return None
            self._numbers[self._place(number) + _PID] = -os.getpid()
            self._numbers[_USED] = max(self._numbers[_USED], number + 1)
            self._taken[number] = weakref.ref(owner)
            return number

    def release(self, owner: object) -> None:
        """Free the slot of a worker that has ended, even if its process id is in use again."""
        for number, known in list(self._taken.items()):
            if known() is owner:
                del self._taken[number]
                self._numbers[self._place(number) + _PID] = _FREE

    def _in_use(self, number: int) -> bool:
        pid = self._numbers[self._place(number) + _PID]
        if pid != -os.getpid():
            return _lives(abs(pid))
        owner = self._taken.get(number)
        return owner is not None and owner() is not None

    @contextlib.contextmanager
    def _locked(self, how: int = fcntl.LOCK_EX) -> Iterator[None]:
        """Two masters may fork workers at the same time, while gunicorn is being replaced."""
        if self.descriptor < 0:
            yield
            return
        fcntl.lockf(self.descriptor, how)
        try:
            yield
        finally:
            fcntl.lockf(self.descriptor, fcntl.LOCK_UN)

    # -- the worker --------------------------------------------------------------------------------

    def own(self, number: int) -> list[int]:
        """Make a reserved slot the calling process's own, which has to count on from the result."""
        counters = self._read(number).counters
        self.write(number, 0.0, [0] * self._gauges, counters)
        self._numbers[self._place(number) + _PID] = os.getpid()
        return counters

    def write(
        self, number: int, now: float, gauges: Sequence[int], counters: Sequence[int]
    ) -> None:
        """Write a slot, at a monotonic time. Only its owner may call this; never blocks."""
        place, numbers = self._place(number), self._numbers
        writes = numbers[place + _WRITES] + 1
        first = place + _FIRST + writes % 2 * self._copy
        numbers[first : first + self._copy] = memoryview(array("q", [*gauges, *counters]))
        numbers[place + _SEEN] = int(now * 1000)
        numbers[place + _WRITES] = writes

    def see(self, number: int, now: float) -> None:
        """Note that the owner lives, without other changes. Never blocks."""
        self._numbers[self._place(number) + _SEEN] = int(now * 1000)

    def claim(self, number: int) -> bool:
        """Whether the caller is the first to claim a number; numbers must rise. Never blocks.

        If two callers claim at the same moment, perhaps neither gets it.
        """
        try:
            with self._locked(fcntl.LOCK_EX | fcntl.LOCK_NB):
                first: bool = self._numbers[_CLAIMED] < number
                if first:
                    self._numbers[_CLAIMED] = number
                return first
        except BlockingIOError:
            return False

    def read(self) -> list[Slot]:
        """Read all slots that were ever used, each as it was at one moment.

        Never blocks: a slot is read again only if its owner has finished a write meanwhile.
        """
        return [self._read(number) for number in range(self._numbers[_USED])]

    def _read(self, number: int) -> Slot:
        place, numbers = self._place(number), self._numbers
        while True:
            writes = numbers[place + _WRITES]
            values = array("q", bytes(numbers[place : place + self._words]))
            # The next write goes to the other copy; only the one after it comes to this one.
            if writes == numbers[place + _WRITES]:
                break
        pid = values[_PID] if values[_PID] > 0 and _lives(values[_PID]) else 0
        first = _FIRST + writes % 2 * self._copy
        copy = values[first : first + self._copy].tolist()
        seen = values[_SEEN] / 1000
        return Slot(number, pid, seen, copy[: self._gauges], copy[self._gauges :])

    def _place(self, number: int) -> int:
        return _HEADER + number * self._words


def _shared(size: int) -> int:
    """A file in memory, whose descriptor a new master can inherit."""
    if not hasattr(os, "memfd_create"):
        return -1  # anonymous memory: children share it, a new master does not
    descriptor = os.memfd_create("sseflask-figures")
    os.ftruncate(descriptor, size)
    return descriptor


def _lives(pid: int) -> bool:
    if pid == _FREE:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
