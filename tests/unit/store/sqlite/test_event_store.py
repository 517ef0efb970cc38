"""The store's thread: order, groups, what fails, and what it does to an event loop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sseflask.store.api import (
    Append,
    Appended,
    Entry,
    EventLimits,
    History,
    HistoryQuery,
    KeyReused,
    StoreError,
)
from sseflask.store.names import Pattern
from sseflask.store.sqlite import event_store as store_module
from sseflask.store.sqlite import thread as module
from sseflask.store.sqlite.event_database import EventDatabase
from sseflask.store.sqlite.event_post import encode
from sseflask.store.sqlite.event_store import SqliteEventStore
from sseflask.store.sqlite.wakeup import MESSAGE_BYTES
from sseflask.store.tail import Page
from tests.live.kit.waiting import until
from tests.processes import go_on, line, process, report_of
from tests.unit.store.sqlite import event_processes as processes

DAY = 86_400.0
EVERYTHING = (Pattern.parse("**"),)
MakeDatabase = Callable[[str, EventLimits], EventDatabase]


class Recorded:
    """A store, and everything that its listener was given."""

    def __init__(self, path: Path | None, keep: int, database: MakeDatabase) -> None:
        self.entries: list[Entry] = []
        self.order: list[int | str] = []
        self.said: list[tuple[Any, ...]] = []
        self.store = SqliteEventStore(str(path or ":memory:"), EventLimits(keep, DAY), database)
        self.store.follow(self)

    def events(self, entries: Sequence[Entry], since: float) -> None:
        assert since <= time.monotonic()
        self.entries.extend(entries)
        self.order.extend(entry.number for entry in entries)

    def started(self, epoch: str, newest: int) -> None:
        self.said.append(("started", epoch, newest))

    def skipped(self, last: int) -> None:
        self.said.append(("skipped", last))

    def closed(self, pattern: Pattern) -> None:
        self.order.append(f"close {pattern}")

    def count(self, pattern: Pattern, answer: Callable[[int], None]) -> None:
        answer(len(str(pattern)))

    def ask(self, function: Callable[[EventDatabase], Any]) -> Any:
        return self.store.call(function)

    def put(self, channel: str, *frames: bytes, key: str | None = None) -> Any:
        return self.store.append(Append(channel, frames, key, b"".join(frames)))

    def read(self, after: int) -> History:
        return self.store.history(HistoryQuery(EVERYTHING, after, 10))

    def has(self, amount: int) -> bool:
        return len(self.entries) >= amount

    def heard(self, what: str, times: int) -> bool:
        return self.order.count(what) == times

    def end(self) -> None:
        self.store.close()
        assert self.store.join(30)


@contextmanager
def running(
    path: Path | None, *, keep: int = 100_000, database: MakeDatabase = EventDatabase
) -> Iterator[Recorded]:
    recorded = Recorded(path, keep, database)
    try:
        yield recorded
    finally:
        recorded.end()


@pytest.fixture(params=["file", "memory"])
def place(request: pytest.FixtureRequest, path: Path) -> Path | None:
    return path if request.param == "file" else None


def numbers(entries: Sequence[Entry]) -> list[int]:
    return [entry.number for entry in entries]


def test_what_is_appended_is_delivered_before_it_is_done(place: Path | None) -> None:
    with running(place) as own:
        assert own.put("a", b"1", b"2") == Appended(1, 2)
        assert own.entries == [Entry(1, "a", b"1"), Entry(2, "a", b"2")]
        assert own.put("b", b"3", key="k") == Appended(3, 3)
        assert own.put("b", b"3", key="k") == Appended(3, 3, repeated=True)
        assert own.put("b", b"4", key="k") == KeyReused("k")
        assert numbers(own.entries) == [1, 2, 3]
        assert own.read(0).entries == own.entries
        epoch = own.ask(lambda database: database.epoch)
        assert own.store.position() == (epoch, 3)
        assert own.said == [("started", epoch, 0)]


def test_what_was_there_before_is_not_delivered(path: Path) -> None:
    with running(path) as first:
        first.put("a", b"1", b"2")
        epoch = first.ask(lambda database: database.epoch)
    with running(path) as own:
        assert own.put("a", b"3") == Appended(3, 3)
        assert numbers(own.entries) == [3]
        assert own.said == [("started", epoch, 2)]


def test_what_waits_is_written_in_groups(place: Path | None) -> None:
    sizes: list[int] = []

    class Counted(EventDatabase):
        def append(self, appends: Sequence[Append]) -> list[Appended | KeyReused]:
            sizes.append(sum(len(append.frames) for append in appends))
            return super().append(appends)

    gate, results = threading.Event(), list[tuple[int, Any]]()
    with running(place, keep=10**6, database=Counted) as own:
        own.store.submit(lambda _: gate.wait(30), lambda *_: None)
        for index in range(1200):
            frames = (b"%d" % index,) * 2

            def done(result: Any, error: Exception | None, index: int = index) -> None:
                assert error is None
                results.append((index, result))

            own.store.submit(Append("a", frames), done)
        own.store.submit(Append("a", (b"big",) * 700), lambda *_: None)
        gate.set()
        own.ask(lambda database: database.newest())
        assert sizes == [500, 500, 500, 500, 400, 700]
        assert results == [(i, Appended(2 * i + 1, 2 * i + 2)) for i in range(1200)]
        assert numbers(own.entries) == list(range(1, 3101))


def test_many_threads_append_at_once(place: Path | None) -> None:
    with running(place) as own:

        def append(tag: int) -> None:
            for index in range(100):
                own.put(f"t.{tag}", b"%d" % index)

        threads = [threading.Thread(target=append, args=(tag,)) for tag in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert numbers(own.entries) == list(range(1, 801))
        for tag in range(8):
            frames = [entry.frame for entry in own.entries if entry.channel == f"t.{tag}"]
            assert frames == [b"%d" % index for index in range(100)]


def test_an_event_of_another_process_is_delivered_at_its_wakeup(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With the look every quarter of a second put off, only the wakeup is left.
    monkeypatch.setattr(module, "LOOK_SECONDS", 60.0)
    monkeypatch.setattr(module, "TRIM_SECONDS", 60.0)
    with running(path) as own, running(path) as other:
        own.ask(lambda database: database.newest())
        other.ask(lambda database: database.newest())
        for index in range(1, 201):
            sender, receiver = (own, other) if index % 3 else (other, own)
            assert sender.put("a", b"%d" % index) == Appended(index, index)
            until(partial(receiver.has, index), "the event is there", pause=0.0005)
        assert numbers(own.entries) == numbers(other.entries) == list(range(1, 201))


def test_what_another_process_sends_is_given_without_reading_the_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 60.0)
    read: list[int] = []

    class Watched(EventDatabase):
        def since(self, number: int, limit: int) -> Page:
            read.append(number)
            return super().since(number, limit)

    with running(path) as own, running(path, database=Watched) as other:
        own.ask(lambda database: database.newest())
        other.ask(lambda database: database.newest())
        for number in range(1, 51):
            own.put("a", b"%d" % number)
            until(partial(other.has, number), "the event is there", pause=0.0005)
        assert read == []
        # What is too long to be sent is read. So is what was stored without being sent.
        own.put("a", b"x" * (MESSAGE_BYTES + 1))
        until(partial(other.has, 51), "the long event is there")
        assert read == [50]
        monkeypatch.setattr(own.store, "_post", lambda *_: None)
        own.put("a", b"52")
        monkeypatch.undo()
        own.put("a", b"53")
        until(partial(other.has, 53), "both are there")
        assert read == [50, 51]
        assert numbers(other.entries) == list(range(1, 54))
        assert other.entries == own.entries


def test_messages_that_are_late_or_of_another_store_give_nothing_twice(path: Path) -> None:
    with running(path) as own, running(path) as other:
        other.ask(lambda database: database.newest())
        own.put("a", b"1", b"2")
        until(partial(other.has, 2), "the events are there")
        epoch = own.ask(lambda database: database.epoch)
        entries = [Entry(1, "a", b"1"), Entry(2, "a", b"2")]
        forged = [Entry(3, "a", b"never stored")]
        for message in (
            encode(epoch, 0, entries),
            encode(epoch, 0, entries[1:]),
            encode("another", 0, forged),
            encode(epoch, 7, forged),
            encode(epoch, 0, [Entry(9, "a", b"never stored")]),
            b"of a later version",
        ):
            own.store._wakeup.wake_others(message)
        own.put("a", b"3")
        until(partial(other.has, 3), "the next event is there")
        assert [entry.frame for entry in other.entries] == [b"1", b"2", b"3"]


def test_all_get_what_several_write_at_once_in_one_order(path: Path) -> None:
    with ExitStack() as stack:
        stores = [stack.enter_context(running(path)) for _ in range(3)]
        for own in stores:
            own.ask(lambda database: database.newest())

        def append(own: Recorded) -> None:
            for index in range(300):
                own.put("a", b"x" * (index % 7 * 1000), b"%d" % index)
                if not index % 50:
                    own.store.close_subscriptions([Pattern.parse(f"closed.{index}")])

        threads = [threading.Thread(target=append, args=(own,)) for own in stores]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for own in stores:
            until(partial(own.has, 1800), "all events")
            until(partial(own.heard, "close closed.250", 3), "all closes")
            assert numbers(own.entries) == list(range(1, 1801))
            assert own.order == stores[0].order


def test_processes_without_a_socket_are_heard_by_looking(path: Path) -> None:
    with running(path) as own, process(processes.append, path, 300, "t") as child:
        own.ask(lambda database: database.newest())
        assert line(child) == "ready"
        go_on(child)
        for _ in range(100):
            own.put("own", b"x")
        assert child.wait(30) == 0
        until(lambda: len(own.entries) >= 1000, "all 900 events and 100 of our own")
        assert numbers(own.entries) == list(range(1, 1001))
        assert [what for what, *_ in own.said] == ["started"]


def test_what_was_forgotten_before_it_was_read_is_reported(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 60.0)
    gate, reached = threading.Event(), threading.Event()
    with running(path, keep=10) as own:
        assert own.put("a", b"1") == Appended(1, 1)
        # The process stands still while another one writes more than is kept.

        def stand_still(_: EventDatabase) -> None:
            reached.set()
            gate.wait(30)

        own.store.submit(stand_still, lambda *_: None)
        assert reached.wait(30)
        other = EventDatabase(str(path), EventLimits(10, DAY))
        other.open()
        for _ in range(5):
            other.append([Append("a", (b"x",) * 10), Append("b", (b"y",))])
        other.close()
        gate.set()
        assert own.put("a", b"last").first == 57
        assert own.said[1:] == [("skipped", 57)]
        seen = numbers(own.entries)
        assert seen[0] == 1
        assert seen[-1] == 57
        assert seen == sorted(set(seen))
        assert {12, 23, 34, 45, 56} < set(seen)


def test_notices_come_between_the_events_where_they_were_given(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that stood still gets them so too, or one that publishes before it reads them."""
    monkeypatch.setattr(module, "LOOK_SECONDS", 60.0)
    monkeypatch.setattr(store_module, "_PAGE", 4)
    gate, reached = threading.Event(), threading.Event()
    with running(path) as own:
        own.put("a", b"1")

        def stand_still(_: EventDatabase) -> None:
            reached.set()
            gate.wait(30)

        own.store.submit(stand_still, lambda *_: None)
        assert reached.wait(30)
        other = EventDatabase(str(path), EventLimits(100, DAY))
        other.open()
        other.notices.send("close", ["at.once"])
        for number in range(2, 12):
            other.append([Append("a", (b"x",))])
            if number in (3, 5, 6, 9):
                other.notices.send("close", [f"{number}"])
        other.notices.send("close", ["last"])
        gate.set()
        assert own.put("a", b"own") == Appended(12, 12)
        # This one comes after the thread has looked, and before it writes.
        gate.clear()
        own.store.submit(lambda _: gate.wait(30), lambda *_: None)
        own.store.submit(lambda _: other.notices.send("close", ["unheard"]), lambda *_: None)
        own.store.submit(Append("a", (b"own",)), lambda *_: None)
        gate.set()
        until(partial(own.has, 13), "the last event")
        other.close()
    between = [1, "at.once", 2, 3, "3", 4, 5, "5", 6, "6", 7, 8, 9, "9", 10, 11, "last"]
    expected = [*between, 12, "unheard", 13]
    assert own.order == [f"close {each}" if isinstance(each, str) else each for each in expected]


class ClosedBeforePosition(EventDatabase):
    """A database in which another process closes a channel just before the position is read."""

    other: EventDatabase | None = None

    def newest(self) -> int:
        other, self.other = self.other, None
        if other is not None:
            other.notices.send("close", ["a"])
        return super().newest()


def test_a_close_of_another_process_is_heard_after_a_position(path: Path) -> None:
    other = EventDatabase(str(path), EventLimits(10, DAY))
    with running(path, database=ClosedBeforePosition) as own:
        other.open()
        own.put("a", b"x")  # so that the position has to be asked for
        own.ask(lambda database: setattr(database, "other", other))
        own.store.position()
        until(lambda: own.order == [1, "close a"], "the close is heard")
    other.close()


def test_a_notice_that_nobody_can_read_holds_nothing_up(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = EventDatabase(str(path), EventLimits(100, DAY))
    other.open()
    with running(path) as own:
        own.ask(lambda database: database.newest())
        other.notices.send("close", ["no pattern"])
        other.notices.send("close", ["a"])
        other.append([Append("a", (b"x",))])
        until(partial(own.has, 1), "the event")
        assert own.put("a", b"y") == Appended(2, 2)
        assert own.order == ["close a", 1, 2]
    other.close()
    assert "no pattern" in caplog.text


def test_a_notice_that_comes_while_the_tail_is_read(path: Path) -> None:
    """It is before an event that this reading would have come to."""
    other = EventDatabase(str(path), EventLimits(100, DAY))
    other.open()

    class Overtaken(EventDatabase):
        def since(self, number: int, limit: int) -> Page:
            if number == 0:
                other.notices.send("close", ["a"])
                other.append([Append("a", (b"after",))])
            # As a store may that gives more than it must.
            return super().since(number, 100 if limit else 0)

    with running(path, keep=100, database=Overtaken) as own:
        own.ask(lambda database: database.newest())
        other.append([Append("a", (b"before",))])
        until(partial(own.has, 2), "both events")
    other.close()
    assert own.order == [1, "close a", 2]


def test_a_call_that_fails_reaches_its_done_and_nobody_else(place: Path | None) -> None:
    with running(place) as own:
        with pytest.raises(ZeroDivisionError):
            own.ask(lambda _: 1 // 0)
        assert own.put("a", b"1") == Appended(1, 1)


def test_one_append_that_can_not_be_stored_does_not_take_others_along(place: Path | None) -> None:
    gate, results = threading.Event(), list[tuple[Any, Exception | None]]()
    with running(place) as own:
        own.store.submit(lambda _: gate.wait(30), lambda *_: None)
        for key in ["fine", "\ud800", "fine too"]:
            own.store.submit(Append("a", (b"1",), key), lambda *what: results.append(what))
        gate.set()
        own.ask(lambda database: database.newest())
        (first, _), (_, error), (last, _) = results
        assert (first, last) == (Appended(1, 1), Appended(2, 2))
        assert isinstance(error, UnicodeEncodeError)
        assert numbers(own.entries) == [1, 2]


def test_callbacks_that_fail_are_logged_and_nothing_ends(
    place: Path | None, caplog: pytest.LogCaptureFixture
) -> None:
    with running(place) as own:

        def fail(*_: object) -> None:
            raise ZeroDivisionError

        own.store.submit(Append("a", (b"1",)), fail)
        assert own.put("a", b"2") == Appended(2, 2)
    assert "ZeroDivisionError" in caplog.text


def test_a_store_that_fails_says_so_to_those_who_ask_and_goes_on(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    full = threading.Event()

    class Failing(EventDatabase):
        def append(self, appends: Sequence[Append]) -> list[Appended | KeyReused]:
            if full.is_set():
                raise StoreError("the disk is full")
            return super().append(appends)

    with running(path, keep=10, database=Failing) as own:
        own.put("a", b"1")
        full.set()
        for _ in range(3):
            with pytest.raises(StoreError, match="the disk is full"):
                own.put("a", b"2", b"3")
        assert own.ask(lambda database: database.newest()) == 1
        full.clear()
        assert own.put("a", b"4") == Appended(2, 2)
        assert [entry.frame for entry in own.entries] == [b"1", b"4"]
    assert "the disk is full" in caplog.text
    assert "works again" in caplog.text


def test_a_store_that_can_not_be_opened_is_tried_again(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.write_text("a file where the directory is to be")
    with running(place / "store.db") as own:
        with pytest.raises(StoreError, match="can't be opened"):
            own.put("a", b"1")
        with pytest.raises(StoreError, match="can't be opened"):
            own.ask(lambda database: database.newest())
        assert own.said == []
        place.unlink()
        until(lambda: own.said, "the store is open")
        assert own.put("a", b"1") == Appended(1, 1)


def test_a_deleted_file_is_made_again_and_logged(path: Path) -> None:
    with running(path) as own, running(path) as other:
        assert other.ask(lambda database: database.newest()) == 0
        own.put("a", b"1")
        until(lambda: other.entries, "the other has it")
        path.unlink()
        until(lambda: len(own.said) == len(other.said) == 2, "both have noticed")
        assert own.put("a", b"new").last >= 1
        until(lambda: other.entries[-1].frame == b"new", "the other has it")
        assert own.said[1] == other.said[1]
        assert own.said[0][1] != own.said[1][1]


def test_forgetting_is_done_by_the_thread(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TRIM_SECONDS", 0.02)
    now = [0.0]

    def database(path: str, limits: EventLimits) -> EventDatabase:
        return EventDatabase(path, replace(limits, seconds=10), clock=lambda: now[0])

    with running(path, keep=10_000, database=database) as own:
        own.put("a", *[b"x"] * 2500)
        now[0] = 11.0
        until(lambda: not own.ask(lambda database: database.since(0, 10)), "all is forgotten")
        assert own.put("a", b"y") == Appended(2501, 2501)


def test_it_is_paused_under_a_flood_and_loses_nothing(path: Path) -> None:
    """As before a fork: the database is closed, even if calls wait for it."""
    stop = threading.Event()
    with running(path) as own:

        def flood() -> None:
            while not stop.is_set():
                own.put("a", b"x")

        threads = [threading.Thread(target=flood) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            until(partial(own.has, 1), "the database is open")
            for _ in range(20):
                before = len(own.entries)
                assert own.store.pause(10)
                closed = own.store._database
                assert closed is not None
                assert closed._database is None
                own.store.resume()
                until(partial(own.has, before + 5), "it goes on")
        finally:
            stop.set()
            for thread in threads:
                thread.join(30)
        assert numbers(own.entries) == list(range(1, len(own.entries) + 1))
        assert [what for what, *_ in own.said] == ["started"]


def test_closing_does_what_was_handed_over_and_refuses_what_comes_later(path: Path) -> None:
    results: list[tuple[Any, Exception | None]] = []
    with running(path) as own:
        for _ in range(100):
            own.store.submit(Append("a", (b"1",)), lambda *what: results.append(what))
        own.store.close()
        assert own.store.join(30)
        assert results == [(Appended(n, n), None) for n in range(1, 101)]
        with pytest.raises(StoreError, match="closed"):
            own.put("a", b"late")
        with pytest.raises(StoreError, match="closed"):
            own.ask(lambda database: database.newest())
        assert list(Path(f"{path}.wake").iterdir()) == []
    with running(path) as own:
        assert own.ask(lambda database: database.newest()) == 100


def test_closing_a_store_that_never_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with running(tmp_path / "file" / "store.db") as own:
        own.store.close()
        assert own.store.join(30)


def test_a_store_that_can_not_be_made_refuses_everything(caplog: pytest.LogCaptureFixture) -> None:
    def database(path: str, limits: EventLimits) -> EventDatabase:
        raise RuntimeError(f"nothing to open at {path} with {limits}")

    with running(None, database=database) as own:
        assert own.store.join(30)
        with pytest.raises(StoreError, match="closed"):
            own.put("a", b"1")
    assert "nothing to open" in caplog.text


def test_under_gevent_the_loop_never_waits(path: Path) -> None:
    report = report_of("tests.unit.store.sqlite.greenlets", path)
    assert report["switches"] == [], "with a native lock held"
    assert report["in order"]
    assert report["appended"] == 5000 + 1
    assert report["transactions"] <= 5000 / 10
    assert report["locked seconds"] >= 0.9
    # A busy machine may delay a tick; a wait for the lock would take as long as that is held.
    assert report["ticks while locked"] >= 30
    assert report["longest pause"] < report["locked seconds"] / 2
    assert report["native"]
    assert report["in the loop"]
    assert report["given to another"] == [*range(5002, 5102)]
    assert report["read by another"] == []
    assert report["left open"] == 0
