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
        yield Path(directory, "new", "log.db")


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
def log(place: Place) -> Iterator[EventDatabase]:
    with opened(place) as log:
        yield log


def test_a_new_log_is_empty_and_has_an_epoch_of_its_own(places: Places) -> None:
    epochs = set()
    for _ in range(3):
        with places() as place, opened(place) as log:
            assert log.newest() == 0
            assert everything(log) == []
            assert missing(log, patterns("**"), 0) == []
            assert log.trim() == 0
            assert len(log.epoch) == 8
            assert log.epoch.isalnum()
            assert log.epoch == log.epoch.lower()
            epochs.add(log.epoch)
    assert len(epochs) == 3


def test_numbers_follow_one_another_over_all_channels(log: EventDatabase) -> None:
    results = log.append([Append("a", (b"1", b"2")), Append("b", (b"3",)), Append("a", (b"4",))])
    assert results == [Appended(1, 2), Appended(3, 3), Appended(4, 4)]
    assert put(log, "c", b"5") == Appended(5, 5)
    assert log.newest() == 5
    assert everything(log) == [
        Entry(1, "a", b"1"),
        Entry(2, "a", b"2"),
        Entry(3, "b", b"3"),
        Entry(4, "a", b"4"),
        Entry(5, "c", b"5"),
    ]
    assert [entry.number for entry in log.since(1, 2)] == [2, 3]
    assert log.since(5, 10) == []


def test_an_append_of_nothing_is_refused_before_it_gets_here() -> None:
    with pytest.raises(ValueError, match="nothing to append"):
        Append("a", ())


def test_any_bytes_come_back(log: EventDatabase) -> None:
    frames = (b"", b"\x00", bytes(range(256)), "\N{PILE OF POO}".encode(), b"x" * 1_000_000)
    put(log, "a", *frames)
    assert tuple(entry.frame for entry in everything(log)) == frames


def test_reading_by_names_and_patterns(log: EventDatabase) -> None:
    for channel in ["a", "a.b", "a.c", "a.b.c", "ab", "a/b", "b"]:
        put(log, channel, channel.encode())

    def found(*texts: str) -> list[str]:
        return [entry.channel for entry in read(log, patterns(*texts), 0, 100, 100)]

    assert found("a") == ["a"]
    assert found("none") == []
    assert found("a.*") == ["a.b", "a.c"]
    assert found("a.**") == ["a.b", "a.c", "a.b.c"]
    assert found("a.**", "a", "a.*") == ["a", "a.b", "a.c", "a.b.c"]
    assert found("*") == ["a", "ab", "a/b", "b"]
    assert found("*.c") == ["a.c"]
    assert len(found("**")) == 7
    assert read(log, [], 0, 100, 100) == []


def test_reading_is_bounded_on_both_sides_and_in_length(log: EventDatabase) -> None:
    for number in range(1, 21):
        put(log, "even" if number % 2 == 0 else "odd", b"%d" % number)
    for asked in (patterns("even"), patterns("even", "none.**"), patterns("even", "x.*")):
        numbers = [entry.number for entry in read(log, asked, 4, 16, 4)]
        assert numbers == [6, 8, 10, 12]
        assert [entry.number for entry in read(log, asked, 12, 16, 4)] == [14, 16]
        assert read(log, asked, 16, 16, 4) == []
        assert read(log, asked, 18, 16, 4) == []


def test_a_quiet_channel_and_a_loud_one_are_read_in_order(place: Place) -> None:
    with opened(place, keep=10_000) as log:
        put(log, "quiet", b"first")
        for _ in range(10):
            log.append([Append("loud", (b"x",) * 200)])
        put(log, "quiet.too", b"last")
        quiet = read(log, patterns("quiet", "quiet.*"), 0, 10_000, 10)
        assert [entry.number for entry in quiet] == [1, 2002]
        both = read(log, patterns("quiet", "loud"), 0, 10_000, 10)
        assert [entry.number for entry in both] == list(range(1, 11))


def test_numbers_beyond_everything_are_no_error(log: EventDatabase) -> None:
    put(log, "a", b"1")
    huge = 10**30
    assert log.since(huge, 10) == []
    assert read(log, patterns("a", "b"), huge, huge, 10) == []
    assert len(read(log, patterns("a"), 0, huge, 10)) == 1
    assert missing(log, patterns("a", "**"), huge) == []


def test_a_key_makes_a_repetition_a_no_op(log: EventDatabase) -> None:
    assert put(log, "a", b"1", b"2", key="k") == Appended(1, 2)
    assert put(log, "a", b"3") == Appended(3, 3)
    assert put(log, "a", b"1", b"2", key="k") == Appended(1, 2, repeated=True)
    assert log.append([Append("a", (b"x",), "k", b"other")]) == [KeyReused("k")]
    twice = [Append("b", (b"4",), "l", b"d"), Append("b", (b"4",), "l", b"d")]
    assert log.append(twice) == [Appended(4, 4), Appended(4, 4, repeated=True)]
    mixed = [Append("b", (b"4",), "l", b"e"), Append("b", (b"5",))]
    assert log.append(mixed) == [KeyReused("l"), Appended(5, 5)]
    assert [entry.frame for entry in everything(log)] == [b"1", b"2", b"3", b"4", b"5"]


def test_a_key_is_known_for_a_day_and_forgotten_after(place: Place) -> None:
    clock = Clock()
    with opened(place, clock=clock, seconds=HOUR) as log:
        put(log, "a", b"1", key="k")
        clock.now += DAY - 1
        log.trim()
        assert put(log, "a", b"1", key="k") == Appended(1, 1, repeated=True)
        clock.now += 2
        log.trim()
        assert put(log, "a", b"1", key="k") == Appended(2, 2)


def test_a_channel_keeps_what_it_is_to_keep_and_tells_what_is_missing(place: Place) -> None:
    with opened(place, keep=10) as log:
        put(log, "other", b"o")
        for _ in range(50):
            put(log, "a", b"x")
            held = len(read(log, patterns("a"), 0, 1000, 1000))
            assert held <= 11
        held_numbers = [entry.number for entry in read(log, patterns("a"), 0, 1000, 1000)]
        assert len(held_numbers) >= 10
        oldest = held_numbers[0]
        assert held_numbers == list(range(oldest, 52))
        (told,) = missing(log, patterns("a"), oldest - 2)
        assert told == Missing(Pattern.parse("a"), oldest, 51)
        assert missing(log, patterns("a", "**"), oldest - 1) == []
        assert missing(log, patterns("other", "b", "b.*"), 0) == []
        assert missing(log, patterns("**"), 0) == [Missing(Pattern.parse("**"), 1, 51)]
        asked = patterns("other", "a", "*")
        assert [told.pattern for told in missing(log, asked, 0)] == asked[1:]


def test_one_append_of_more_than_is_kept(place: Place) -> None:
    with opened(place, keep=3) as log:
        assert put(log, "a", *[b"%d" % number for number in range(10)]) == Appended(1, 10)
        assert [entry.number for entry in everything(log)] == [8, 9, 10]
        assert missing(log, patterns("a"), 6) == [Missing(Pattern.parse("a"), 8, 10)]
        assert missing(log, patterns("a"), 7) == []


def test_old_events_are_forgotten_a_bounded_number_at_a_time(place: Place) -> None:
    clock = Clock()
    with opened(place, keep=10_000, seconds=HOUR, clock=clock) as log:
        log.append([Append(f"c.{number % 7}", (b"x",) * 10) for number in range(250)])
        clock.now += HOUR
        assert log.trim() == 0
        put(log, "young", b"y")
        clock.now += 1
        amounts = []
        while amount := log.trim():
            amounts.append(amount)
        assert sum(amounts) == 2500
        assert max(amounts) <= 1000
        assert everything(log) == [Entry(2501, "young", b"y")]
        assert missing(log, patterns("c.1"), 0) == [Missing(Pattern.parse("c.1"), None, None)]
        assert missing(log, patterns("young"), 0) == []
        assert log.newest() == 2501
        put(log, "c.1", b"z")
        assert [entry.number for entry in read(log, patterns("c.*"), 0, 9999, 10)] == [2502]


def test_numbers_go_on_where_all_has_been_forgotten(place: Place) -> None:
    clock = Clock()
    with opened(place, keep=5, seconds=1, clock=clock) as log:
        put(log, "a", b"1", b"2", b"3")
        clock.now += 2
        assert log.trim() == 3
        assert everything(log) == []
        assert log.newest() == 3
        assert put(log, "a", b"4") == Appended(4, 4)
        assert missing(log, patterns("a"), 2) == [Missing(Pattern.parse("a"), 4, 4)]
        assert missing(log, patterns("a"), 3) == []


@pytest.mark.parametrize("jump", [-10 * 365 * DAY, -2.0, 10 * 365 * DAY])
def test_a_clock_that_jumps_keeps_nothing_for_ever(place: Place, jump: float) -> None:
    clock = Clock()
    with opened(place, seconds=HOUR, clock=clock) as log:
        put(log, "a", b"1")
        clock.now += jump
        put(log, "a", b"2")
        clock.now -= jump
        put(log, "a", b"3")
        assert [entry.number for entry in everything(log)] == [1, 2, 3]
        clock.now += HOUR + 1
        while log.trim():
            pass
        assert everything(log) == []


def test_a_clock_put_back_forgets_nothing_early(place: Place) -> None:
    clock = Clock()
    with opened(place, seconds=HOUR, clock=clock) as log:
        put(log, "a", b"1")
        for _ in range(10):
            clock.now -= 300
            log.trim()
            put(log, "a", b"x")
        clock.now += HOUR
        assert log.trim() == 0
        assert len(everything(log)) == 11


def test_more_empty_channels_than_are_remembered(place: Place) -> None:
    clock = Clock()
    with (
        remember_empty_channels(3),
        opened(place, seconds=HOUR, clock=clock) as log,
    ):
        for number in range(1, 9):
            put(log, f"c.{number}", b"x")
        clock.now += HOUR + 1
        put(log, "live", b"y")
        while log.trim():
            pass
        # 6, 7 and 8 are remembered; of the others it is only known that nothing is above 5.
        for number in range(1, 9):
            name = f"c.{number}"
            assert missing(log, patterns(name), number - 1), name
            assert not missing(log, patterns(name), max(number, 5)), name
        assert missing(log, patterns("never"), 4)
        assert not missing(log, patterns("never"), 5)
        assert missing(log, patterns("**"), 7)
        assert not missing(log, patterns("**"), 8)
        put(log, "c.1", b"again")
        assert missing(log, patterns("c.1"), 0)
        assert not missing(log, patterns("c.1"), 5)
        assert not missing(log, patterns("live"), 0)


def test_changed_is_true_until_it_is_asked_how_far_the_log_is(place: Place) -> None:
    with opened(place) as log:
        log.newest()
        assert not log.changed()
        if place is None:
            log.since(0, 10)
            assert not log.changed()
            return
        with opened(place) as other:
            put(other, "a", b"1")
            assert log.changed()
            assert log.changed()
            assert log.newest() == 1
            assert not log.changed()
            put(other, "b", b"0")
            assert log.changed()
            # What else there may be than events is only known with the newest number.
            assert [entry.frame for entry in log.since(0, 10)] == [b"1", b"0"]
            assert log.changed()
            assert log.newest() == 2
            assert not log.changed()
            put(other, "a", b"2")
            put(log, "a", b"3")
            assert log.changed()
            other.notices.send("close", ["a"])
            log.newest()
            other.notices.send("close", ["a"])
            assert log.changed()


def test_notices_have_numbers_of_their_own(log: EventDatabase) -> None:
    assert log.last_notice == 0
    assert log.notices.after(0) == []
    put(log, "a", b"1", b"2")
    assert log.notices.send("close", ["a", "b.*"]) == 2
    put(log, "a", b"3")
    assert log.last_notice == 2
    assert log.notices.send("count", ["**"]) == 3
    assert log.newest() == 3
    assert log.last_notice == 3
    notices = [
        Notice(1, 2, "close", "a"),
        Notice(2, 2, "close", "b.*"),
        Notice(3, 3, "count", "**"),
    ]
    for after in range(4):
        assert log.notices.after(after) == notices[after:]
    assert [entry.number for entry in everything(log)] == [1, 2, 3]
    assert missing(log, patterns("**"), 0) == []


def test_the_last_notices_are_kept(log: EventDatabase) -> None:
    for number in range(1, 1101):
        assert log.notices.send("close", ["a"]) == number
    kept = [notice.number for notice in log.notices.after(0)]
    assert 500 <= len(kept) <= 1000
    assert kept == list(range(kept[0], 1101))


def test_notices_go_on_where_they_were(place: Place) -> None:
    if place is None:
        return
    with opened(place) as log:
        log.notices.send("close", ["a"])
    with opened(place) as log, opened(place) as other:
        assert log.newest() == 0
        assert log.last_notice == 1
        assert other.notices.send("close", ["b"]) == 2
        put(log, "a", b"1")
        assert log.last_notice == 2


def test_answers_to_a_notice(log: EventDatabase) -> None:
    first, second = log.notices.send("count", ["a"]), log.notices.send("count", ["a"])
    log.notices.answer(first, "one", 3)
    log.notices.answer(second, "one", 4)
    log.notices.answer(first, "two", 0)
    assert log.notices.answers(first) == {"one": 3, "two": 0}
    log.notices.forget_answers(first)
    assert log.notices.answers(first) == {}
    assert log.notices.answers(second) == {"one": 4}


def test_closing_twice_and_opening_again(place: Place) -> None:
    log = database_at(place, keep=10, seconds=HOUR)
    log.close()
    log.open()
    epoch = log.epoch
    put(log, "a", b"1", key="k")
    log.close()
    log.close()
    log.open()
    if place is not None:
        assert log.epoch == epoch
        assert everything(log) == [Entry(1, "a", b"1")]
        assert put(log, "a", b"1", key="k").repeated
    else:
        assert log.epoch != epoch
        assert everything(log) == []
    assert not log.replaced()
    log.close()
