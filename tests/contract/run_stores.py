"""The backends of the run store, and listeners that record what they are given.

A backend is a name and a function: each call of it makes a place where nothing is stored yet.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any
from unittest import mock

from sseflask.store.api import StoreError
from sseflask.store.open import open_run_store
from sseflask.store.redis import run_scripts
from sseflask.store.redis.run_scripts import Tick
from sseflask.store.redis.run_store import RedisRunStore
from sseflask.store.run_api import (
    Claim,
    Ending,
    Endings,
    PassedOn,
    Run,
    RunAppend,
    RunFrames,
    RunKey,
    RunLimits,
    RunStore,
    size_of,
)
from sseflask.store.sqlite import leases
from sseflask.store.sqlite.run_store import SqliteRunStore
from tests import memory, redis_server

DAY = 86_400.0
FINISHED, STOPPED = Ending(b"finished"), Ending(b"stopped")
ENDINGS = Endings(Ending(b"interrupted", frees_key=True), Ending(b"full"), Ending(b"unavailable"))

#: Seconds that a listener may have to wait: far more than it needs.
_SECONDS = 30.0

_ids = count(1)


@dataclass(frozen=True)
class Place:
    """Where stores are.

    Args:
        address: what `open_run_store` takes.
        shared: whether several stores use it at the same time, and one after the other.
        stand_still: stops the process of a store for so long that others take it for
            dead; until what it returns is called.
    """

    address: str
    shared: bool
    stand_still: Callable[[RunStore], Callable[[], object]]


Places = Callable[[], AbstractContextManager[Place]]


@contextmanager
def _file() -> Iterator[Place]:
    def stand_still(store: RunStore) -> Callable[[], object]:
        assert isinstance(store, SqliteRunStore)
        over = threading.Event()
        store.submit(lambda _database: over.wait(_SECONDS), lambda *_: None)
        return over.set

    with memory.directory() as directory, mock.patch.object(leases, "DEAD_SECONDS", 1.5):
        yield Place(str(Path(directory, "new", "runs.db")), True, stand_still)


@contextmanager
def _memory() -> Iterator[Place]:
    def stand_still(_store: RunStore) -> Callable[[], object]:
        raise AssertionError("there are no others")

    yield Place(":memory:", False, stand_still)


@contextmanager
def _server(kind: str) -> Iterator[Place]:
    def stand_still(store: RunStore) -> Callable[[], object]:
        assert isinstance(store, RedisRunStore)
        over, tick = threading.Event(), store._scripts.tick

        def wait(*arguments: Any, **named: Any) -> Tick:
            over.wait(_SECONDS)
            return tick(*arguments, **named)

        mock.patch.object(store._scripts, "tick", wait).start()  # for as long as the store is there
        return over.set

    with mock.patch.object(run_scripts, "DEAD_SECONDS", 1.5):
        yield Place(redis_server.shared(kind).place(), True, stand_still)


BACKENDS: Mapping[str, Places] = {
    "sqlite": _file,
    "sqlite in memory": _memory,
    **{kind: partial(_server, kind) for kind in redis_server.programs()},
}


class Listener:
    """Records all that it is given.

    Attributes:
        seen: the frames of each run, numbered.
        ends: the ended runs, and whether this process has ended them.
        inheritance: the runs that were inherited, and how to go on.
        gone: the runs that were lost, and why.
        beats: how often `beat` was called.
    """

    def __init__(self) -> None:
        self.seen: dict[RunKey, list[tuple[int, bytes]]] = {}
        self.ends: list[tuple[Run, bool]] = []
        self.inheritance: list[tuple[Run, bytes]] = []
        self.gone: list[tuple[RunKey, StoreError | None]] = []
        self.beats = 0
        self.changed = threading.Condition()

    def frames(self, batch: Sequence[RunFrames]) -> None:
        with self.changed:
            for run, first, frames in batch:
                assert frames
                assert not self.ended_as(run), "frames come before the end"
                self.seen.setdefault(run, []).extend(enumerate(frames, first))
            self.changed.notify_all()

    def ended(self, run: Run, here: bool) -> None:
        with self.changed:
            self.ends.append((run, here))
            self.changed.notify_all()

    def inherited(self, run: Run, successor: bytes) -> None:
        with self.changed:
            seen = self.seen.get(run.key)
            assert not seen or seen[-1][0] == run.last, "all frames up to there come before"
            self.inheritance.append((run, successor))
            self.changed.notify_all()

    def lost(self, run: RunKey, error: StoreError | None) -> None:
        with self.changed:
            self.gone.append((run, error))
            self.changed.notify_all()

    def beat(self) -> None:
        with self.changed:
            self.beats += 1
            self.changed.notify_all()

    def ended_as(self, run: RunKey) -> list[Run]:
        return [ended for ended, _ in self.ends if ended.key == run]

    def inherited_as(self, run: Run) -> list[Run]:
        return [inherited for inherited, _ in self.inheritance if inherited.key == run.key]

    def wait_for_inheritance(self, run: Run, times: int = 1) -> Run:
        self.wait(lambda: len(self.inherited_as(run)) >= times, "it is not inherited")
        return self.inherited_as(run)[-1]

    def wait_until_passed_on(self, run: Run) -> None:
        self.wait(lambda: run.key in [each for each, _ in self.gone], "it is not passed on")
        assert isinstance(dict(self.gone)[run.key], PassedOn)

    def wait(self, condition: Callable[[], object], what: str) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, _SECONDS), what

    def wait_for_frame(self, run: Run, number: int) -> None:
        self.wait(lambda: (self.seen.get(run.key) or [(0, b"")])[-1][0] >= number, f"no {number}")

    def wait_for_end(self, run: Run) -> Run:
        self.wait(lambda: self.ended_as(run.key), "it has not ended")
        return self.ended_as(run.key)[0]


@contextmanager
def opened(
    place: Place, *, seconds: float = DAY, max_bytes: float = math.inf, inherits: bool = True
) -> Iterator[tuple[RunStore, Listener]]:
    """A store as a process has it."""
    store = open_run_store(place.address, RunLimits(seconds, max_bytes), ENDINGS)
    listener = Listener()
    store.follow(listener, inherits=inherits)
    try:
        yield store, listener
    finally:
        store.close()


def fresh(
    key: str | None = None,
    digest: bytes = b"",
    *,
    subject: str = "alice",
    most: int = 100,
    keep: float | None = None,
    successor: bytes = b"",
) -> Claim:
    """A claim of a run with an id of its own."""
    id = f"{os.getpid():016x}{next(_ids):016x}"  # processes may share a store
    return Claim(id, subject, subject, most, "label", key, digest, keep, successor)


def begun(store: RunStore, claim: Claim | None = None) -> Run:
    """A run that did not exist before."""
    claim = claim or fresh()
    claimed = store.claim(claim)
    assert isinstance(claimed, tuple)
    run, repeated = claimed
    assert run == Run(run.key, claim.id, claim.label, 0)
    assert not repeated
    return run


def frames_of(first: int, amount: int) -> list[bytes]:
    return [b"frame %d" % number for number in range(first, first + amount)]


def append_of(run: Run, first: int, amount: int, ending: Ending | None = None) -> RunAppend:
    """An append of frames after `frames_of` all that come before."""
    frames = frames_of(first, amount)
    notes = [b"notes %d" % number for number in range(first, first + amount)]
    size = size_of(frames_of(1, first + amount - 1))
    return RunAppend(run.key, first, frames, notes, size, ending)


def put(store: RunStore, run: Run, first: int, amount: int, ending: Ending | None = None) -> None:
    store.append(append_of(run, first, amount, ending))


def everything(store: RunStore, run: Run) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    while page := store.frames(run.key, found[-1][0] if found else 0, 1000):
        found += page
    return found


def numbered(first: int, amount: int) -> list[tuple[int, bytes]]:
    return list(enumerate(frames_of(first, amount), first))
