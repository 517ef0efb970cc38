"""Numbers that the workers of one server see of each other: memory that they share.

Each worker has a slot, which it alone writes. What is counted there never falls: a worker that gets
the slot of a dead one counts on from where that one had come to. So nothing has to be added up when
a worker dies, however it dies.
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

__all__ = ["SLOTS", "Slot", "Table"]

#: So many workers may be at it; memory is taken only for those that are.
SLOTS = 4096

#: The words of a slot: how often it was written, whose it is (if negative: it was taken by that
#: process for a child that has not begun), when its owner was last seen.
_VERSION, _PID, _SEEN, _FIRST = 0, 1, 2, 3

#: How often a slot is read again that is being written meanwhile.
_TRIES = 100

_WORD = 8
_HEADER = 4096 // _WORD
_FREE = 0

#: Words of the header: how many slots were ever taken, and the highest number that was claimed.
_USED, _CLAIMED = 0, 1


class Slot(NamedTuple):
    """What a slot held at one moment.

    Args:
        number: its place.
        pid: the process that owns it; 0 if that is dead, or has not begun.
        seen: the monotonic time at which that last wrote.
        gauges: what holds as long as the owner lives.
        counters: what was counted by all its owners.
    """

    number: int
    pid: int
    seen: float
    gauges: list[int]
    counters: list[int]


class Table:
    """Slots of whole numbers of 64 bits.

    Made by the process that forks the workers. That one takes slots and gives them back; a worker
    writes its own, and reads all, without any lock.

    Args:
        gauges: how many of them a slot has.
        counters: how many of them.
        descriptor: of a table that another process has made with the same numbers; by default a new
            one is made.
    """

    def __init__(self, gauges: int, counters: int, descriptor: int | None = None) -> None:
        self._gauges = gauges
        self._words = _FIRST + gauges + counters
        size = (_HEADER + SLOTS * self._words) * _WORD
        self.descriptor = _shared(size) if descriptor is None else descriptor
        self._map = mmap.mmap(self.descriptor, size)
        self._numbers = memoryview(self._map).cast("q")
        # Of slots that were taken for workers which have not begun: they go with these.
        self._taken: dict[int, weakref.ref[object]] = {}

    # -- the process that forks --------------------------------------------------------------------

    def take(self, owner: object) -> int | None:
        """Take a slot for a worker that is to be forked.

        Args:
            owner: stands for the worker in this process; lives as long as that does.

        Returns:
            the slot's number, ``None`` if all are taken.
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

    def give_back(self, owner: object) -> None:
        """A worker has ended; without this its slot is free when nothing has its process id."""
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
        """Two processes may fork workers at the same time, while gunicorn is being replaced."""
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
        """Make a slot that was taken the calling process's own.

        Returns:
            what its owners have counted before: the caller has to count on from there.
        """
        place = self._place(number)
        if self._numbers[place + _VERSION] % 2:
            self._numbers[place + _VERSION] += 1  # whoever wrote it has died over it
        counters = self._read(number).counters
        self.write(number, 0.0, [0] * self._gauges, counters)
        self._numbers[place + _PID] = os.getpid()
        return counters

    def write(
        self, number: int, now: float, gauges: Sequence[int], counters: Sequence[int]
    ) -> None:
        """Write a slot. Its owner only; never blocks.

        Args:
            number: the slot.
            now: the monotonic time.
            gauges: see `Slot`.
            counters: see `Slot`.
        """
        place, numbers = self._place(number), self._numbers
        numbers[place + _VERSION] += 1  # odd: who reads has to look again
        numbers[place + _FIRST : place + self._words] = memoryview(array("q", [*gauges, *counters]))
        numbers[place + _SEEN] = int(now * 1000)
        numbers[place + _VERSION] += 1

    def see(self, number: int, now: float) -> None:
        """Note that the owner lives, though it has nothing to write. Never blocks."""
        self._numbers[self._place(number) + _SEEN] = int(now * 1000)

    def claim(self, number: int) -> bool:
        """Whether the caller is the first to ask for a number, of which each is higher than before.

        Also if another one asks in the same moment: then neither may have it. Never blocks.
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
        """Read all slots that were ever taken, each as it was at one moment. Never blocks."""
        return [self._read(number) for number in range(self._numbers[_USED])]

    def _read(self, number: int) -> Slot:
        place, numbers = self._place(number), self._numbers
        for _ in range(_TRIES):
            version = numbers[place + _VERSION]
            values = array("q", bytes(numbers[place : place + self._words]))
            if not version % 2 and version == numbers[place + _VERSION]:
                break
        # Otherwise its writer has died in the middle: each number is the one from before or after.
        pid = values[_PID] if values[_PID] > 0 and _lives(values[_PID]) else 0
        first = values[_FIRST : _FIRST + self._gauges].tolist()
        rest = values[_FIRST + self._gauges :].tolist()
        return Slot(number, pid, values[_SEEN] / 1000, first, rest)

    def _place(self, number: int) -> int:
        return _HEADER + number * self._words


def _shared(size: int) -> int:
    """A file in memory, which a program started in the place of this one can go on with."""
    if not hasattr(os, "memfd_create"):
        return -1  # what is mapped is shared with children all the same
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
