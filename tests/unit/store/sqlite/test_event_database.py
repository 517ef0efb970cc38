"""A database of events, in a file and in memory: what the store's thread relies on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from sseflask.store.api import Append, Appended, Entry, KeyReused, Missing
from sseflask.store.names import Pattern
from sseflask.store.sqlite.event_database import EventDatabase
from sseflask.store.tail import Notice
from tests import memory
from tests.clock import Clock
from tests.unit.store.sqlite.databases import (
    DAY,
    HOUR,
    Place,
    database_at,
    everything,
    missing,
    opened,
    patterns,
    put,
    read,
    remember_empty_channels,
)

Places = Callable[[], AbstractContextManager[Place]]


@contextmanager
def files() -> Iterator[Place]:
    with memory.directory() as directory:
        yield Path(directory, "new", "store.db")


@contextmanager
def memories() -> Iterator[Place]:
    yield None


@pytest.fixture(params=[files, memories])
def places(request: pytest.FixtureRequest) -> Places:
    """Makes places, each with nothing in it."""
    made: Places = request.param
    return made


@pytest.fixture
def place(places: Places) -> Iterator[Place]:
    with places() as place:
        yield place


@pytest.fixture
def store(place: Place) -> Iterator[EventDatabase]:
    with opened(place) as store:
        yield store


def test_a_new_store_is_empty_and_has_an_epoch_of_its_own(places: Places) -> None:
    epochs = set()
    for _ in range(3):
        with places() as place, opened(place) as store:
            assert store.newest() == 0
            assert everything(store) == []
            assert missing(store, patterns("**"), 0) == []
            assert store.trim() == 0
            assert len(store.epoch) == 8
            assert store.epoch.isalnum()
            assert store.epoch == store.epoch.lower()
            epochs.add(store.epoch)
    assert len(epochs) == 3


def test_numbers_follow_one_another_over_all_channels(store: EventDatabase) -> None:
    results = store.append([Append("a", (b"1", b"2")), Append("b", (b"3",)), Append("a", (b"4",))])
    assert results == [Appended(1, 2), Appended(3, 3), Appended(4, 4)]
    assert put(store, "c", b"5") == Appended(5, 5)
    assert store.newest() == 5
    assert everything(store) == [
        Entry(1, "a", b"1"),
        Entry(2, "a", b"2"),
        Entry(3, "b", b"3"),
        Entry(4, "a", b"4"),
        Entry(5, "c", b"5"),
    ]
    assert [entry.number for entry in store.since(1, 2)] == [2, 3]
    assert store.since(5, 10) == []


def test_an_append_of_nothing_is_refused_before_it_gets_here() -> None:
    with pytest.raises(ValueError, match="nothing to append"):
        Append("a", ())


def test_any_bytes_come_back(store: EventDatabase) -> None:
    frames = (b"", b"\x00", bytes(range(256)), "\N{PILE OF POO}".encode(), b"x" * 1_000_000)
    put(store, "a", *frames)
    assert tuple(entry.frame for entry in everything(store)) == frames


def test_reading_by_names_and_patterns(store: EventDatabase) -> None:
    for channel in ["a", "a.b", "a.c", "a.b.c", "ab", "a/b", "b"]:
        put(store, channel, channel.encode())

    def found(*texts: str) -> list[str]:
        return [entry.channel for entry in read(store, patterns(*texts), 0, 100, 100)]

    assert found("a") == ["a"]
    assert found("none") == []
    assert found("a.*") == ["a.b", "a.c"]
    assert found("a.**") == ["a.b", "a.c", "a.b.c"]
    assert found("a.**", "a", "a.*") == ["a", "a.b", "a.c", "a.b.c"]
    assert found("*") == ["a", "ab", "a/b", "b"]
    assert found("*.c") == ["a.c"]
    assert len(found("**")) == 7
    assert read(store, [], 0, 100, 100) == []


def test_reading_is_bounded_on_both_sides_and_in_length(store: EventDatabase) -> None:
    for number in range(1, 21):
        put(store, "even" if number % 2 == 0 else "odd", b"%d" % number)
    for asked in (patterns("even"), patterns("even", "none.**"), patterns("even", "x.*")):
        numbers = [entry.number for entry in read(store, asked, 4, 16, 4)]
        assert numbers == [6, 8, 10, 12]
        assert [entry.number for entry in read(store, asked, 12, 16, 4)] == [14, 16]
        assert read(store, asked, 16, 16, 4) == []
        assert read(store, asked, 18, 16, 4) == []


def test_a_quiet_channel_and_a_loud_one_are_read_in_order(place: Place) -> None:
    with opened(place, keep=10_000) as store:
        put(store, "quiet", b"first")
        for _ in range(10):
            store.append([Append("loud", (b"x",) * 200)])
        put(store, "quiet.too", b"last")
        quiet = read(store, patterns("quiet", "quiet.*"), 0, 10_000, 10)
        assert [entry.number for entry in quiet] == [1, 2002]
        both = read(store, patterns("quiet", "loud"), 0, 10_000, 10)
        assert [entry.number for entry in both] == list(range(1, 11))


def test_numbers_beyond_everything_are_no_error(store: EventDatabase) -> None:
    put(store, "a", b"1")
    huge = 10**30
    assert store.since(huge, 10) == []
    assert read(store, patterns("a", "b"), huge, huge, 10) == []
    assert len(read(store, patterns("a"), 0, huge, 10)) == 1
    assert missing(store, patterns("a", "**"), huge) == []


def test_a_key_makes_a_repetition_a_no_op(store: EventDatabase) -> None:
    assert put(store, "a", b"1", b"2", key="k") == Appended(1, 2)
    assert put(store, "a", b"3") == Appended(3, 3)
    assert put(store, "a", b"1", b"2", key="k") == Appended(1, 2, repeated=True)
    assert store.append([Append("a", (b"x",), "k", b"other")]) == [KeyReused("k")]
    twice = [Append("b", (b"4",), "l", b"d"), Append("b", (b"4",), "l", b"d")]
    assert store.append(twice) == [Appended(4, 4), Appended(4, 4, repeated=True)]
    mixed = [Append("b", (b"4",), "l", b"e"), Append("b", (b"5",))]
    assert store.append(mixed) == [KeyReused("l"), Appended(5, 5)]
    assert [entry.frame for entry in everything(store)] == [b"1", b"2", b"3", b"4", b"5"]


def test_a_key_is_known_for_a_day_and_forgotten_after(place: Place) -> None:
    clock = Clock()
    with opened(place, clock=clock, seconds=HOUR) as store:
        put(store, "a", b"1", key="k")
        clock.now += DAY - 1
        store.trim()
        assert put(store, "a", b"1", key="k") == Appended(1, 1, repeated=True)
        clock.now += 2
        store.trim()
        assert put(store, "a", b"1", key="k") == Appended(2, 2)


def test_a_channel_keeps_what_it_is_to_keep_and_tells_what_is_missing(place: Place) -> None:
    with opened(place, keep=10) as store:
        put(store, "other", b"o")
        for _ in range(50):
            put(store, "a", b"x")
            held = len(read(store, patterns("a"), 0, 1000, 1000))
            assert held <= 11
        held_numbers = [entry.number for entry in read(store, patterns("a"), 0, 1000, 1000)]
        assert len(held_numbers) >= 10
        oldest = held_numbers[0]
        assert held_numbers == list(range(oldest, 52))
        (gap,) = missing(store, patterns("a"), oldest - 2)
        assert gap == Missing(Pattern.parse("a"), oldest, 51)
        assert missing(store, patterns("a", "**"), oldest - 1) == []
        assert missing(store, patterns("other", "b", "b.*"), 0) == []
        assert missing(store, patterns("**"), 0) == [Missing(Pattern.parse("**"), 1, 51)]
        asked = patterns("other", "a", "*")
        assert [gap.pattern for gap in missing(store, asked, 0)] == asked[1:]


def test_one_append_of_more_than_is_kept(place: Place) -> None:
    with opened(place, keep=3) as store:
        assert put(store, "a", *[b"%d" % number for number in range(10)]) == Appended(1, 10)
        assert [entry.number for entry in everything(store)] == [8, 9, 10]
        assert missing(store, patterns("a"), 6) == [Missing(Pattern.parse("a"), 8, 10)]
        assert missing(store, patterns("a"), 7) == []


def test_old_events_are_forgotten_a_bounded_number_at_a_time(place: Place) -> None:
    clock = Clock()
    with opened(place, keep=10_000, seconds=HOUR, clock=clock) as store:
        store.append([Append(f"c.{number % 7}", (b"x",) * 10) for number in range(250)])
        clock.now += HOUR
        assert store.trim() == 0
        put(store, "young", b"y")
        clock.now += 1
        amounts = []
        while amount := store.trim():
            amounts.append(amount)
        assert sum(amounts) == 2500
        assert max(amounts) <= 1000
        assert everything(store) == [Entry(2501, "young", b"y")]
        assert missing(store, patterns("c.1"), 0) == [Missing(Pattern.parse("c.1"), None, None)]
        assert missing(store, patterns("young"), 0) == []
        assert store.newest() == 2501
        put(store, "c.1", b"z")
        assert [entry.number for entry in read(store, patterns("c.*"), 0, 9999, 10)] == [2502]


def test_numbers_go_on_where_all_has_been_forgotten(place: Place) -> None:
    clock = Clock()
    with opened(place, keep=5, seconds=1, clock=clock) as store:
        put(store, "a", b"1", b"2", b"3")
        clock.now += 2
        assert store.trim() == 3
        assert everything(store) == []
        assert store.newest() == 3
        assert put(store, "a", b"4") == Appended(4, 4)
        assert missing(store, patterns("a"), 2) == [Missing(Pattern.parse("a"), 4, 4)]
        assert missing(store, patterns("a"), 3) == []


@pytest.mark.parametrize("jump", [-10 * 365 * DAY, -2.0, 10 * 365 * DAY])
def test_a_clock_that_jumps_keeps_nothing_for_ever(place: Place, jump: float) -> None:
    clock = Clock()
    with opened(place, seconds=HOUR, clock=clock) as store:
        put(store, "a", b"1")
        clock.now += jump
        put(store, "a", b"2")
        clock.now -= jump
        put(store, "a", b"3")
        assert [entry.number for entry in everything(store)] == [1, 2, 3]
        clock.now += HOUR + 1
        while store.trim():
            pass
        assert everything(store) == []


def test_a_clock_put_back_forgets_nothing_early(place: Place) -> None:
    clock = Clock()
    with opened(place, seconds=HOUR, clock=clock) as store:
        put(store, "a", b"1")
        for _ in range(10):
            clock.now -= 300
            store.trim()
            put(store, "a", b"x")
        clock.now += HOUR
        assert store.trim() == 0
        assert len(everything(store)) == 11


def test_more_empty_channels_than_are_remembered(place: Place) -> None:
    clock = Clock()
    with (
        remember_empty_channels(3),
        opened(place, seconds=HOUR, clock=clock) as store,
    ):
        for number in range(1, 9):
            put(store, f"c.{number}", b"x")
        clock.now += HOUR + 1
        put(store, "live", b"y")
        while store.trim():
            pass
        # 6, 7 and 8 are remembered; of the others it is only known that nothing is above 5.
        for number in range(1, 9):
            name = f"c.{number}"
            assert missing(store, patterns(name), number - 1), name
            assert not missing(store, patterns(name), max(number, 5)), name
        assert missing(store, patterns("never"), 4)
        assert not missing(store, patterns("never"), 5)
        assert missing(store, patterns("**"), 7)
        assert not missing(store, patterns("**"), 8)
        put(store, "c.1", b"again")
        assert missing(store, patterns("c.1"), 0)
        assert not missing(store, patterns("c.1"), 5)
        assert not missing(store, patterns("live"), 0)


def test_changed_is_true_until_it_is_asked_how_far_the_store_is(place: Place) -> None:
    with opened(place) as store:
        store.newest()
        assert not store.changed()
        if place is None:
            store.since(0, 10)
            assert not store.changed()
            return
        with opened(place) as other:
            put(other, "a", b"1")
            assert store.changed()
            assert store.changed()
            assert store.newest() == 1
            assert not store.changed()
            put(other, "b", b"0")
            assert store.changed()
            # What else there may be than events is only known with the newest number.
            assert [entry.frame for entry in store.since(0, 10)] == [b"1", b"0"]
            assert store.changed()
            assert store.newest() == 2
            assert not store.changed()
            put(other, "a", b"2")
            put(store, "a", b"3")
            assert store.changed()
            other.notices.send("close", ["a"])
            store.newest()
            other.notices.send("close", ["a"])
            assert store.changed()


def test_notices_have_numbers_of_their_own(store: EventDatabase) -> None:
    assert store.last_notice == 0
    assert store.notices.after(0) == []
    put(store, "a", b"1", b"2")
    assert store.notices.send("close", ["a", "b.*"]) == 2
    put(store, "a", b"3")
    assert store.last_notice == 2
    assert store.notices.send("count", ["**"]) == 3
    assert store.newest() == 3
    assert store.last_notice == 3
    notices = [
        Notice(1, 2, "close", "a"),
        Notice(2, 2, "close", "b.*"),
        Notice(3, 3, "count", "**"),
    ]
    for after in range(4):
        assert store.notices.after(after) == notices[after:]
    assert [entry.number for entry in everything(store)] == [1, 2, 3]
    assert missing(store, patterns("**"), 0) == []


def test_the_last_notices_are_kept(store: EventDatabase) -> None:
    for number in range(1, 1101):
        assert store.notices.send("close", ["a"]) == number
    kept = [notice.number for notice in store.notices.after(0)]
    assert 500 <= len(kept) <= 1000
    assert kept == list(range(kept[0], 1101))


def test_notices_go_on_where_they_were(place: Place) -> None:
    if place is None:
        return
    with opened(place) as store:
        store.notices.send("close", ["a"])
    with opened(place) as store, opened(place) as other:
        assert store.newest() == 0
        assert store.last_notice == 1
        assert other.notices.send("close", ["b"]) == 2
        put(store, "a", b"1")
        assert store.last_notice == 2


def test_answers_to_a_notice(store: EventDatabase) -> None:
    first, second = store.notices.send("count", ["a"]), store.notices.send("count", ["a"])
    store.notices.answer(first, "one", 3)
    store.notices.answer(second, "one", 4)
    store.notices.answer(first, "two", 0)
    assert store.notices.answers(first) == {"one": 3, "two": 0}
    store.notices.forget_answers(first)
    assert store.notices.answers(first) == {}
    assert store.notices.answers(second) == {"one": 4}


def test_closing_twice_and_opening_again(place: Place) -> None:
    store = database_at(place, keep=10, seconds=HOUR)
    store.close()
    store.open()
    epoch = store.epoch
    put(store, "a", b"1", key="k")
    store.close()
    store.close()
    store.open()
    if place is not None:
        assert store.epoch == epoch
        assert everything(store) == [Entry(1, "a", b"1")]
        assert put(store, "a", b"1", key="k").repeated
    else:
        assert store.epoch != epoch
        assert everything(store) == []
    assert not store.replaced()
    store.close()
