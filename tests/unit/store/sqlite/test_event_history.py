"""Reading what channels hold: what it costs, and that what is known of patterns is never stale."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

import pytest

from sseflask.store.api import Append, History, HistoryQuery, MissingScope
from sseflask.store.names import Pattern
from sseflask.store.sqlite import event_tables as sqlite_tables
from sseflask.store.sqlite import pattern_channels as sqlite_patterns
from sseflask.store.sqlite.event_database import EventDatabase
from sseflask.store.sqlite.pattern_channels import Steps
from tests.clock import Clock
from tests.unit.store.sqlite.databases import (
    DAY,
    history,
    missing,
    patterns,
    put,
    read,
    small_steps,
)
from tests.unit.store.sqlite.databases import opened as opened_database


@contextmanager
def opened(
    path: Path | None = None, *, keep: int = 10**6, clock: Clock | None = None
) -> Iterator[EventDatabase]:
    with opened_database(path, keep=keep, clock=clock) as store:
        yield store


def fill(store: EventDatabase, channels: int, name: str = "u.{}") -> None:
    store.append([Append(name.format(number), (b"x",)) for number in range(channels)])


def numbers(store: EventDatabase, text: str, after: int = 0, limit: int = 100) -> list[int]:
    """In small pages, so that not all is among the next events of all channels."""
    found = read(store, patterns(text), after, 10**9, limit, page=3)
    return [entry.number for entry in found]


def finish(steps: Steps[History], pause: int, meanwhile: Callable[[], object]) -> History:
    """Take all steps; after some of them do something else."""
    try:
        for _ in range(pause):
            next(steps)
        meanwhile()
        while True:
            next(steps)
    except StopIteration as end:
        result: History = end.value
        return result


class Cost:
    """Counts what SQLite does, in hundreds of its instructions."""

    def __init__(self, store: EventDatabase) -> None:
        self._log = store
        self.steps: list[int] = []

    def _run(self, step: Callable[[], object]) -> None:
        count = 0

        def tick() -> int:
            nonlocal count
            count += 1
            return 0

        database = self._log._database
        assert isinstance(database, sqlite3.Connection)
        database.set_progress_handler(tick, 100)
        try:
            step()
        finally:
            database.set_progress_handler(None, 0)
            self.steps.append(count)

    def of(self, *texts: str, after: int, ends: MissingScope = "trimmed") -> History:
        self.steps = []
        steps = self._log.history(HistoryQuery(tuple(patterns(*texts)), after, 100, ends))
        while True:
            try:
                self._run(lambda: next(steps))
            except StopIteration as end:
                result: History = end.value
                return result


# -- what it costs ---------------------------------------------------------------------------------


def test_who_is_one_event_behind_costs_one_event_however_many_channels_there_are() -> None:
    with opened() as store:
        fill(store, 15_000)
        cost = Cost(store)
        for texts in (
            ["u.*"],
            ["u.**", "v.*"],
            ["**"],
            ["u.14999", *(f"n.{n}" for n in range(99))],
        ):
            assert [entry.number for entry in cost.of(*texts, after=14_999).entries] == [15_000]
            assert sum(cost.steps) < 20, texts


def test_many_wildcards_cost_what_they_return_and_give_way() -> None:
    with opened() as store:
        fill(store, 20_000)
        cost = Cost(store)
        # Nothing is meant: all names are gone through, once.
        texts = [f"u.*.x{number}" for number in range(20)]
        assert cost.of(*texts, after=0, ends="none").entries == []
        assert max(cost.steps) < 3000
        first = sum(cost.steps)
        assert cost.of(*reversed(texts), after=0, ends="none").entries == []
        assert sum(cost.steps) < first / 50


def test_new_channels_cost_what_they_are_to_a_pattern_that_is_known() -> None:
    with opened() as store:
        fill(store, 20_000)
        cost = Cost(store)
        cost.of("u.*.x", "u.7", after=0, ends="none")
        for number in range(5):
            put(store, f"u.new.{number}", b"x")
            cost.of("u.*.x", "u.7", after=0, ends="none")
            assert sum(cost.steps) < 60


def test_a_few_channels_among_many_events_are_read_without_going_through_these() -> None:
    with opened() as store:
        put(store, "few.a", b"1")
        for _ in range(20):
            store.append([Append("loud", (b"x",) * 500)])
        put(store, "few.b", b"2")
        cost = Cost(store)
        assert [entry.number for entry in cost.of("few.*", after=0).entries] == [1, 10_002]
        assert [entry.number for entry in cost.of("few.*", "few.b", after=1).entries] == [10_002]
        assert sum(cost.steps) < 60


def test_a_step_is_short_when_many_channels_are_meant_whose_events_are_far_away() -> None:
    with opened() as store:
        for _ in range(20):
            store.append([Append("loud", (b"x",) * 500)])
        fill(store, 2000, "late.{}")
        cost = Cost(store)
        found = cost.of("late.*", after=0)
        assert found.entries == [] or found.entries[0].number == 10_001
        assert max(cost.steps) < 3000
        assert numbers(store, "late.*", limit=5) == list(range(10_001, 10_006))


def test_what_is_missing_is_found_where_events_were_forgotten() -> None:
    clock = Clock()
    with opened(clock=clock) as store:
        fill(store, 5000)
        fill(store, 5000, "v.{}")
        clock.now += DAY + 1
        while store.trim():
            pass
        put(store, "u.1", b"y")
        cost = Cost(store)
        (gap,) = cost.of("u.*", after=0).missing
        assert (gap.oldest, gap.newest) == (10_001, 10_001)
        assert max(cost.steps) < 3000
        # A client that has seen the last of them lacks nothing, and nothing is searched for it.
        assert cost.of("u.*", "v.*.x", "none.**", after=10_000).missing == []
        assert sum(cost.steps) < 20


def test_what_is_known_of_patterns_is_bounded() -> None:
    with opened() as store:
        fill(store, 1500)
        assert numbers(store, "u.*", limit=2000) == list(range(1, 1501))
        for number in range(sqlite_patterns._PATTERNS + 50):
            history(store, HistoryQuery(tuple(patterns(f"*.{number}", "none")), 0, 1, "none"))
        known = store._pattern_channels._known
        assert len(known) == sqlite_patterns._PATTERNS
        assert all(len(each.ids) <= sqlite_patterns.MANY for each in known.values())


# -- what is known of patterns is never stale ------------------------------------------------------


@pytest.fixture(params=["listed", "many"])
def small(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whether a pattern's channels are listed or not, it is to give the same."""
    with small_steps(many=100 if request.param == "listed" else 0):
        yield


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_channel_that_appears_is_found_by_a_pattern_that_is_known(
    tmp_path: Path, elsewhere: bool
) -> None:
    with opened(tmp_path / "store") as store, opened(tmp_path / "store") as other:
        writer = other if elsewhere else store
        fill(store, 10, "noise.{}")
        put(store, "a.1", b"x")
        assert numbers(store, "a.*") == [11]
        put(writer, "a.0", b"x")  # before the other in the order of the names
        fill(writer, 10, "noise.{}")
        put(writer, "a.2", b"x")
        fill(writer, 10, "noise.{}")
        assert numbers(store, "a.*") == [11, 12, 23]
        assert numbers(store, "a.*", after=11) == [12, 23]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_channel_that_is_forgotten_and_another_in_its_place(
    tmp_path: Path, elsewhere: bool
) -> None:
    clock = Clock()
    with (
        mock.patch.object(sqlite_tables, "_EMPTY_CHANNELS", 0),
        opened(tmp_path / "store", clock=clock) as store,
        opened(tmp_path / "store", clock=clock) as other,
    ):
        writer = other if elsewhere else store
        fill(store, 10, "noise.{}")
        put(store, "a.1", b"x")
        assert numbers(store, "a.*") == [11]
        clock.now += DAY + 1
        while writer.trim():
            pass
        put(writer, "b.1", b"x")  # 12
        fill(writer, 10, "noise.{}")
        assert numbers(store, "a.*") == []
        put(writer, "a.2", b"x")
        put(writer, "a.1", b"x")
        assert numbers(store, "a.*") == [23, 24]
        assert numbers(store, "b.*") == [12]


@pytest.mark.usefixtures("small")
def test_a_channel_that_appears_between_two_steps_is_not_passed_over(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store, opened(tmp_path / "store") as other:
        fill(store, 10, "noise.{}")
        put(store, "a.1", b"x")
        for pause in range(0, 60, 2):
            store._pattern_channels.clear()
            steps = store.history(HistoryQuery(tuple(patterns("a.*", "*.9.9")), 0, 9))
            found = finish(steps, pause, lambda: put(other, f"a.1{store.newest()}", b"x"))
            there = {entry.number for entry in found.entries}
            assert {n for n in numbers(store, "a.*") if n <= found.last} <= there


@pytest.mark.usefixtures("small")
def test_channels_of_different_loudness_are_merged_in_order() -> None:
    with opened() as store:
        put(store, "quiet", b"x")
        for turn in range(30):
            store.append([Append("loud", (b"x",) * 3), Append("noise", (b"x",))])
            if turn % 10 == 9:
                put(store, "a.rare", b"x")
        every = [entry for entry in store.since(0, 1000) if entry.channel != "noise"]
        asked = patterns("quiet", "loud", "a.*")
        for limit in (1, 2, 7, 50, 200):
            assert read(store, asked, 0, 10**9, limit) == every[:limit]


@pytest.mark.usefixtures("small")
def test_what_is_missing_of_channels_that_are_not_remembered(tmp_path: Path) -> None:
    clock = Clock()
    with (
        mock.patch.object(sqlite_tables, "_EMPTY_CHANNELS", 0),
        opened(tmp_path / "store", clock=clock) as store,
        opened(tmp_path / "store", clock=clock) as other,
    ):
        put(store, "a.1", b"x")
        fill(store, 10, "noise.{}")
        assert missing(store, patterns("a.*"), 0) == []
        clock.now += DAY + 1
        while other.trim():
            pass
        assert [gap.pattern for gap in missing(store, patterns("a.*"), 0)] == patterns("a.*")
        assert missing(store, patterns("a.*"), 11) == []


@pytest.mark.usefixtures("small")
def test_what_is_missing_of_a_channel_that_is_no_longer_remembered_between_two_steps() -> None:
    for pause in range(20):
        clock = Clock()
        with opened(clock=clock) as store:
            put(store, "a.1", b"x")
            fill(store, 5, "noise.{}")
            clock.now += DAY + 1
            while store.trim():
                pass
            put(store, "live", b"x")

            def forget(store: EventDatabase = store) -> None:
                with mock.patch.object(sqlite_tables, "_EMPTY_CHANNELS", 0):
                    store.trim()

            found = finish(
                store.history(HistoryQuery(tuple(patterns("a.*")), 0, 10)), pause, forget
            )
            assert [gap.pattern for gap in found.missing] == patterns("a.*")


@pytest.mark.usefixtures("small")
def test_what_is_missing_of_one_pattern_while_others_lose_more(tmp_path: Path) -> None:
    with opened(tmp_path / "store", keep=2) as store, opened(tmp_path / "store", keep=2) as other:
        for name in ("a.1", "a.2", "a.3"):
            put(store, name, *[b"x"] * 4)  # two of each are forgotten
        for name in ("b.1", "b.2", "b.3", "b.4", "b.5"):
            put(other, name, *[b"x"] * 9)
        a, b = patterns("a.*", "b.*")
        assert [gap.pattern for gap in missing(store, [a, b, *patterns("c.*")], 9)] == [a, b]
        assert missing(store, [a], 10) == []
        ends = [(gap.oldest, gap.newest) for gap in missing(store, [a, b], 0)]
        assert ends == [(3, 12), (20, 57)]


def test_a_file_in_the_place_of_another_is_looked_at_anew(tmp_path: Path) -> None:
    with small_steps(many=100):
        with opened(tmp_path / "other") as store:
            fill(store, 10, "noise.{}")
            put(store, "b.1", b"x")
            put(store, "a.9", b"x")
        with opened(tmp_path / "store") as store:
            fill(store, 10, "noise.{}")
            put(store, "a.1", b"x")
            assert numbers(store, "a.*") == [11]
            store.close()
            (tmp_path / "other").replace(tmp_path / "store")
            store.open()
            assert numbers(store, "a.*") == [12]


def test_a_file_of_the_first_release_gets_what_it_lacks(tmp_path: Path) -> None:
    with ExitStack() as stack:
        store = stack.enter_context(opened(tmp_path / "store"))
        put(store, "a.1", b"x")
        with store.writing() as database:
            database.execute("DROP INDEX channels_by_trimmed")
        store.close()
        store.open()
        with store.using() as database:
            assert database.execute(
                "SELECT count(*) FROM sqlite_master WHERE name = 'channels_by_trimmed'"
            ).fetchone() == (1,)
        assert numbers(store, "a.*") == [1]


def test_patterns_that_are_nearly_the_same_are_told_apart() -> None:
    names = ["a", "a.", "a..b", "a-b", "a.b", "a.b.c", "ab.c", "A.b", "a/".replace("/", ":")]
    with opened() as store:
        for name in names:
            put(store, name, b"x")
        fill(store, 200, "noise.{}.deep.{}".replace("{}", "x", 1))
        for text in ("a.*", "a.**", "*.b", "*", "a.*.*", "*.*.*", "a.*.**", "*.b.**"):
            pattern = Pattern.parse(text)
            expected = [n for n, name in enumerate(names, 1) if pattern.matches(name)]
            assert numbers(store, text, limit=len(expected) + 1)[: len(expected)] == expected, text
