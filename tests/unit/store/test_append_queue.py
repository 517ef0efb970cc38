"""Groups of what writers store: order, one at a time, what fails, which writers wait."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import pytest

from sseflask.loop.callbacks import Done
from sseflask.store import append_queue as module
from sseflask.store.api import StoreError
from sseflask.store.append_queue import AppendQueue
from sseflask.store.run_api import FRAME_BYTES, Ending, RunAppend, RunFrames, size_of
from tests.live.kit.waiting import until

SECONDS = 10.0
FINISHED = Ending(b"finished")


class Piece(NamedTuple):
    """What a test says of an append; its frames have their numbers for notes."""

    run: int
    first: int
    frames: list[bytes]
    ending: Ending | None = None


def piece_of(append: RunAppend) -> Piece:
    assert append.notes == [b"%d" % n for n in range(append.first, append.last + 1)]
    return Piece(append.run, append.first, [*append.frames], append.ending)


def at_once(function: Callable[..., None], *arguments: object) -> None:
    function(*arguments)


class Stored:
    """A store that answers when a test says so, and what the queue reported."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[Piece], Sequence[RunAppend], Done]] = []
        self.passed_on: list[RunFrames] = []
        self.failed: list[Piece] = []
        self.sizes: dict[int, int] = {}
        self.queue = AppendQueue(self.store, at_once, self.passed_on.extend, self.give_up)

    def store(self, appends: Sequence[RunAppend], done: Done) -> None:
        self.asked.append(([piece_of(each) for each in appends], appends, done))

    def give_up(self, appends: Sequence[RunAppend], _: Exception) -> None:
        self.failed += map(piece_of, appends)

    def add(self, run: int, first: int, *frames: bytes, ending: Ending | None = None) -> None:
        notes = [b"%d" % (first + place) for place in range(len(frames))]
        self.sizes[run] = size = self.sizes.get(run, 0) + size_of(frames)
        self.queue.wait_for_room(run)
        self.queue.add(RunAppend(run, first, [*frames], notes, size, ending))

    @property
    def last(self) -> list[Piece]:
        """What it was asked to store last."""
        return self.asked[-1][0]

    def succeed(self, refused: int = 0) -> None:
        _, appends, done = self.asked[-1]
        done(appends[:refused], None)

    def fail(self, error: Exception) -> None:
        self.asked[-1][2](None, error)


@pytest.fixture
def store() -> Stored:
    return Stored()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow one another at once."""
    monkeypatch.setattr(module, "_RETRY_SECONDS", 0.001)


def asked_again(store: Stored, times: int) -> None:
    until(lambda: len(store.asked) == times, f"asked {times} times", pause=0.001)


def test_what_comes_meanwhile_shares_the_next_one(store: Stored) -> None:
    store.add(1, 1, b"a")
    assert store.last == [Piece(1, 1, [b"a"])]
    store.add(2, 1, b"x")
    store.add(1, 2, b"b", b"c")
    store.add(1, 4, b"d")
    store.add(2, 2, ending=FINISHED)
    assert len(store.asked) == 1, "one at a time"
    store.succeed()
    assert store.last == [
        Piece(2, 1, [b"x"], FINISHED),
        Piece(1, 2, [b"b", b"c", b"d"]),
    ]
    store.succeed()
    assert len(store.asked) == 2
    assert [append.first for append in store.passed_on] == [1, 1, 2]
    store.add(1, 5, b"e")
    assert store.last == [Piece(1, 5, [b"e"])]


def test_a_transaction_is_bounded_whatever_waits(
    store: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_GROUP_BYTES", 10 * (1 + FRAME_BYTES))
    store.add(1, 1, b"a")
    store.add(1, 10, *[b"b"] * 25, ending=FINISHED)
    store.add(2, 10, *[b"c"] * 5)
    store.add(3, 1, b"d")
    store.add(4, 10, ending=FINISHED)
    store.succeed()
    assert store.last == [Piece(3, 1, [b"d"]), Piece(1, 10, [b"b"] * 9)]
    store.succeed()
    assert store.last == [Piece(1, 19, [b"b"] * 10)]
    store.fail(StoreError("locked"))
    asked_again(store, 4)
    assert store.last == [Piece(1, 19, [b"b"] * 10)]
    store.succeed()
    assert store.last == [
        Piece(1, 29, [b"b"] * 6, FINISHED),
        Piece(2, 10, [b"c"] * 4),
    ]
    store.succeed()
    assert store.last == [Piece(2, 14, [b"c"]), Piece(4, 10, [], FINISHED)]
    store.succeed()
    assert not store.queue._waiting_bytes


@pytest.mark.parametrize("frame", [b"x" * 1000, b""])
def test_a_frame_of_any_size_is_stored(
    store: Stored, monkeypatch: pytest.MonkeyPatch, frame: bytes
) -> None:
    monkeypatch.setattr(module, "_GROUP_BYTES", 5)
    store.add(1, 1, b"a")
    store.add(1, 2, frame, frame)
    store.succeed()
    assert store.last == [Piece(1, 2, [frame])]
    store.succeed()
    assert store.last == [Piece(1, 3, [frame])]


def test_frames_that_are_stored_are_passed_on_and_nothing_else(store: Stored) -> None:
    store.add(1, 1, b"a")
    store.add(2, 1, b"x")
    store.add(3, 1, ending=FINISHED)
    store.add(4, 1, b"y", b"z", ending=FINISHED)
    store.succeed(refused=1)
    assert store.passed_on == []
    store.succeed(refused=1)
    assert store.passed_on == [RunFrames(4, 1, [b"y", b"z"])]
    assert store.failed == []


@pytest.mark.usefixtures("quick")
def test_what_fails_is_tried_again_with_what_has_come(store: Stored) -> None:
    store.add(1, 1, b"a")
    store.add(2, 1, b"x")
    store.fail(StoreError("locked"))
    store.add(1, 2, b"b")
    asked_again(store, 2)
    store.add(1, 3, b"c", ending=FINISHED)
    store.add(3, 1, b"y")
    store.fail(StoreError("locked"))
    asked_again(store, 3)
    assert store.last == [
        Piece(1, 1, [b"a", b"b", b"c"], FINISHED),
        Piece(2, 1, [b"x"]),
        Piece(3, 1, [b"y"]),
    ]
    store.succeed()
    assert [append.run for append in store.passed_on] == [1, 2, 3]
    assert store.failed == []


def test_after_some_time_it_is_given_up(
    store: Stored, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.0)
    store.add(1, 1, b"a")
    store.fail(StoreError("the disk is full"))
    assert store.failed == [Piece(1, 1, [b"a"])]
    assert store.passed_on == []
    assert "the disk is full" in caplog.text
    store.add(2, 1, b"x")
    assert store.last == [Piece(2, 1, [b"x"])]
    store.succeed()
    assert [append.run for append in store.passed_on] == [2]


def test_patience_is_measured_from_the_first_of_a_row_of_failures(
    store: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(module, "_RETRY_SECONDS", 0.001)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    store.add(1, 1, b"a")
    for attempt in (2, 3, 4):
        store.fail(StoreError("locked"))
        _wait_for(store, attempt)
        assert store.failed == []
        now[0] += module._PATIENCE / 3 + 0.1
    store.fail(StoreError("locked"))
    assert [append.run for append in store.failed] == [1]
    # A success in between begins the count anew.
    store.add(2, 1, b"b")
    store.succeed()
    store.add(2, 2, b"c")
    now[0] += 2 * module._PATIENCE
    store.fail(StoreError("locked"))
    assert [append.run for append in store.failed] == [1]


def _wait_for(store: Stored, times: int) -> None:
    """As `asked_again`, while the clock stands still."""
    there = threading.Event()
    for _ in range(5000):
        if len(store.asked) == times:
            return
        there.wait(0.001)
    raise AssertionError("not asked again")


@pytest.mark.parametrize("patience", [0.0, 20.0])
def test_nothing_is_stored_behind_what_was_given_up(
    store: Stored, monkeypatch: pytest.MonkeyPatch, patience: float
) -> None:
    """Otherwise the run would have a hole."""
    monkeypatch.setattr(module, "_PATIENCE", patience)
    store.add(1, 1, b"a")
    store.add(1, 2, b"b")
    store.add(2, 1, b"x")
    store.fail(StoreError("full") if not patience else TypeError("what is this?"))
    assert store.last == [Piece(2, 1, [b"x"])]
    store.add(1, 3, b"c", ending=FINISHED)
    store.succeed()
    assert [(append.run, append.first) for append in store.passed_on] == [(2, 1)]
    assert [append.run for append in store.failed] == [1]
    assert len(store.asked) == 2


def test_an_error_that_does_not_pass_is_not_tried_again(store: Stored) -> None:
    store.add(1, 1, b"a")
    store.fail(TypeError("what is this?"))
    assert [append.run for append in store.failed] == [1]
    assert len(store.asked) == 1


@pytest.fixture
def ahead(store: Stored, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A writer that is too far ahead of the store, and what is set when it goes on."""
    monkeypatch.setattr(module, "_AHEAD", 10 + FRAME_BYTES)
    store.add(1, 1, b"x" * 6)
    store.add(1, 2, b"x" * 5)  # still
    went_on = threading.Event()

    def write() -> None:
        store.add(1, 3, b"late")
        went_on.set()

    writer = threading.Thread(target=write)
    writer.start()
    yield went_on
    writer.join(SECONDS)
    assert not writer.is_alive()


def test_a_writer_waits_when_it_is_too_far_ahead(store: Stored, ahead: threading.Event) -> None:
    store.add(2, 1, b"y" * 100)  # no other thread does
    assert not ahead.wait(0.05)
    store.succeed()
    assert ahead.wait(SECONDS)
    asked = [frame for append in store.last if append.run == 1 for frame in append.frames]
    assert asked == [b"x" * 5]
    store.succeed()
    assert store.last == [Piece(1, 3, [b"late"])]


def test_a_writer_whose_frames_are_given_up_waits_no_longer(
    store: Stored, ahead: threading.Event
) -> None:
    assert not ahead.wait(0.05)
    store.fail(TypeError("never"))
    assert ahead.wait(SECONDS)
    assert len(store.asked) == 1


@pytest.mark.usefixtures("quick")
def test_writers_at_full_speed_and_a_store_that_often_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_AHEAD", 200 + 80 * FRAME_BYTES)
    monkeypatch.setattr(module, "_GROUP_BYTES", 100 + 40 * FRAME_BYTES)
    monkeypatch.setattr(module, "_PATIENCE", 1000.0)
    chance, there = random.Random(1), threading.Condition()
    calls: list[tuple[Sequence[RunAppend], Done]] = []
    found: dict[int, list[bytes]] = {}
    passed_on: dict[int, list[bytes]] = {}
    ended: set[int] = set()

    def store(appends: Sequence[RunAppend], done: Done) -> None:
        with there:
            calls.append((appends, done))
            there.notify_all()

    def stored(batch: Sequence[RunFrames]) -> None:
        for run, _, frames in batch:
            passed_on.setdefault(run, []).extend(frames)

    def serve() -> None:
        while len(ended) < 8:
            with there:
                assert there.wait_for(lambda: calls, SECONDS)
                assert len(calls) == 1, "one at a time"
                appends, done = calls.pop()
            if chance.random() < 0.3:
                done(None, StoreError("locked"))
                continue
            for append in appends:
                frames = found.setdefault(append.run, [])
                assert append.first == len(frames) + 1
                frames += append.frames
                assert append.size == size_of(frames)
                assert piece_of(append)
                if append.ending is not None:
                    ended.add(append.run)
            done([], None)

    def give_up(*_: object) -> None:
        raise AssertionError("given up")

    queue = AppendQueue(store, at_once, stored, give_up)

    def write(run: int) -> None:
        size = 0
        for number in range(1, 301):
            frames = [b"%d" % number]
            size += size_of(frames)
            queue.wait_for_room(run)
            queue.add(RunAppend(run, number, frames, [b"%d" % number], size))
        queue.add(RunAppend(run, 301, [], [], size, FINISHED))

    threads = [threading.Thread(target=write, args=(run,)) for run in range(8)]
    threads.append(threading.Thread(target=serve))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    expected = {run: [b"%d" % number for number in range(1, 301)] for run in range(8)}
    assert found == passed_on == expected
    assert not queue._storing
    assert not queue._full
    assert not queue._room
    assert not queue._waiting
    assert not queue._waiting_bytes


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, Callable[[], object]]]:
    """What an event loop would call later; a test calls it instead."""
    found: list[tuple[float, Callable[[], object]]] = []

    def later(seconds: float, function: Callable[[], object]) -> None:
        found.append((seconds, function))

    monkeypatch.setattr(module, "cooperative", lambda: True)
    monkeypatch.setattr(module, "call_in_main_loop_later", later)
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    return found


def test_in_a_loop_others_are_waited_for_but_not_with_a_first_frame(
    planned: list[tuple[float, Callable[[], object]]],
) -> None:
    store = Stored()
    store.add(1, 1, b"a")
    assert len(store.asked) == 1, "the first frame of a run"
    store.succeed()
    second = module._URGENT + 1
    store.add(1, second, b"b")
    store.add(1, second + 1, b"c")
    assert len(store.asked) == 1
    assert [seconds for seconds, _ in planned] == [pytest.approx(module._PACE)]
    store.add(2, 1, b"x")
    assert store.last == [Piece(1, second, [b"b", b"c"]), Piece(2, 1, [b"x"])]
    # While one is under way even that has to wait, and then goes at once.
    store.add(3, 1, b"y")
    store.add(1, second + 2, b"d")
    assert len(store.asked) == 2
    store.succeed()
    assert store.last == [Piece(3, 1, [b"y"]), Piece(1, second + 2, [b"d"])]
    store.succeed()
    store.add(1, 5, b"e")
    assert (len(store.asked), len(planned)) == (3, 2)
    planned[0][1]()
    assert len(store.asked) == 3, "that pause was over long ago"
    planned[-1][1]()
    assert store.last == [Piece(1, 5, [b"e"])]
