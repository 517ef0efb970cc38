"""What every event store promises, whatever keeps the events: see `EventStore`."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import pytest

from sseflask.store.api import (
    Append,
    Appended,
    Entry,
    EventLimits,
    EventStore,
    KeyReused,
    Missing,
    StoreError,
)
from sseflask.store.names import Pattern
from sseflask.store.open import open_event_store
from tests.contract.event_stores import (
    BACKENDS,
    DAY,
    Listener,
    Place,
    Places,
    numbers,
    opened,
    put,
    query,
    read,
)

SECONDS = 30.0


@pytest.fixture(params=BACKENDS)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    with BACKENDS[request.param]() as place:
        yield place


@pytest.fixture
def own(place: Place) -> Iterator[tuple[EventStore, Listener]]:
    with opened(place) as own:
        yield own


@pytest.fixture
def store(own: tuple[EventStore, Listener]) -> EventStore:
    return own[0]


@pytest.fixture
def listener(own: tuple[EventStore, Listener]) -> Listener:
    return own[1]


@pytest.fixture
def shared(request: pytest.FixtureRequest) -> Iterator[Place]:
    """A place that several processes use."""
    with BACKENDS[request.param]() as place:
        yield place


def _is_shared(places: Places) -> bool:
    with places() as place:
        return place.shared


#: Runs a test with the backends that several processes can use at the same time.
for_shared = pytest.mark.parametrize(
    "shared", [name for name, places in BACKENDS.items() if _is_shared(places)], indirect=True
)


# -- storing ---------------------------------------------------------------------------------------


def test_a_new_store_is_empty_and_has_an_epoch_of_its_own() -> None:
    epochs = set()
    for places in BACKENDS.values():
        for _ in range(2):
            with places() as place, opened(place) as (store, listener):
                epoch, newest = store.position()
                assert newest == 0
                assert listener.started_at == [(epoch, 0)]
                assert listener.order == []
                assert epoch.isalnum()
                assert epoch == epoch.lower()
                history = store.history(query("**", missing="all"))
                assert (history.epoch, history.entries, history.newest) == (epoch, [], 0)
                assert history.missing == [Missing(Pattern.parse("**"), None, None)]
                epochs.add(epoch)
    assert len(epochs) == 2 * len(BACKENDS)


def test_numbers_follow_one_another_over_all_channels(
    store: EventStore, listener: Listener
) -> None:
    assert put(store, "a", b"1", b"2") == Appended(1, 2)
    assert put(store, "b", b"3") == Appended(3, 3)
    expected = [Entry(1, "a", b"1"), Entry(2, "a", b"2"), Entry(3, "b", b"3")]
    # The own listener has them before `append` returns.
    assert listener.entries == expected
    assert store.history(query("**")).entries == expected
    assert store.position().number == 3


def test_an_append_tells_the_epoch_of_its_numbers(store: EventStore) -> None:
    assert put(store, "a", b"1", key="k").epoch == store.position().epoch
    assert put(store, "a", b"1", key="k").epoch == store.position().epoch


def test_an_append_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to append"):
        Append("a", ())


def test_any_bytes_come_back(store: EventStore, listener: Listener) -> None:
    frames = (b"", b"\x00", bytes(range(256)), "\N{PILE OF POO}".encode(), b"x" * 1_000_000)
    put(store, "a", *frames)
    assert tuple(entry.frame for entry in read(store, query("a"))) == frames
    assert tuple(entry.frame for entry in listener.entries) == frames


def test_a_key_makes_a_repetition_a_no_op(store: EventStore, listener: Listener) -> None:
    assert put(store, "a", b"1", b"2", key="k") == Appended(1, 2)
    assert put(store, "a", b"3") == Appended(3, 3)
    assert put(store, "a", b"1", b"2", key="k") == Appended(1, 2, repeated=True)
    assert store.append(Append("a", (b"x",), "k", b"other")) == KeyReused("k")
    assert put(store, "b", b"1", key="l") == Appended(4, 4)
    assert listener.order == [1, 2, 3, 4]


def test_threads_that_append_at_once_share_one_order(store: EventStore, listener: Listener) -> None:
    results: list[Appended] = []

    def append(tag: int) -> None:
        for index in range(50):
            results.append(put(store, f"t.{tag}", b"%d" % index, b"second"))

    threads = [threading.Thread(target=append, args=(tag,)) for tag in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert listener.order == list(range(1, 601))
    assert sorted(result.first for result in results) == list(range(1, 601, 2))
    for tag in range(6):
        frames = [entry.frame for entry in listener.entries if entry.channel == f"t.{tag}"]
        assert frames[::2] == [b"%d" % index for index in range(50)]


# -- reading ---------------------------------------------------------------------------------------


def test_reading_by_names_and_patterns(store: EventStore) -> None:
    for channel in ["a", "a.b", "a.c", "a.b.c", "ab", "b"]:
        put(store, channel, channel.encode())

    def found(*texts: str) -> list[str]:
        return [entry.channel for entry in read(store, query(*texts))]

    assert found("a") == ["a"]
    assert found("none") == []
    assert found("a.*") == ["a.b", "a.c"]
    assert found("a.**") == ["a.b", "a.c", "a.b.c"]
    assert found("a.**", "a", "a.*") == ["a", "a.b", "a.c", "a.b.c"]
    assert found("*") == ["a", "ab", "b"]
    assert found("*.c") == ["a.c"]
    assert len(found("**")) == 6
    assert found() == []


def test_a_page_says_how_far_it_is_complete(store: EventStore) -> None:
    for number in range(1, 21):
        put(store, "even" if number % 2 == 0 else "odd", b"%d" % number)
    page = store.history(query("even", after=4, limit=3))
    assert numbers(page.entries) == [6, 8, 10]
    assert 10 <= page.last < page.newest == 20
    rest = store.history(query("even", after=16))
    assert (numbers(rest.entries), rest.last) == ([18, 20], 20)
    assert store.history(query("even", after=20)).entries == []
    assert page.upto(8) == (page.entries[:2], 8)
    assert page.upto(99) == (page.entries, page.last)


def test_a_quiet_channel_among_loud_ones(place: Place) -> None:
    with opened(place, keep=10_000) as (store, _):
        put(store, "quiet", b"first")
        put(store, "loud", *[b"x"] * 2000)
        put(store, "quiet.too", b"last")
        assert numbers(read(store, query("quiet", "quiet.*", limit=3))) == [1, 2002]
        assert numbers(read(store, query("quiet", "loud", limit=500))) == list(range(1, 2002))


def test_numbers_beyond_everything_are_no_error(store: EventStore) -> None:
    put(store, "a", b"1")
    for after in (1, 2**63, 10**30):
        history = store.history(query("a", "**", after=after))
        assert (history.entries, history.missing, history.newest) == ([], [], 1)


def test_what_is_trimmed_is_said_to_be_missing(place: Place) -> None:
    with opened(place, keep=10) as (store, _):
        put(store, "other", b"o")
        for _ in range(50):
            put(store, "a", b"x")
        held = numbers(read(store, query("a")))
        assert 10 <= len(held) <= 11
        assert held == list(range(held[0], 52))
        missing = [Missing(Pattern.parse("a"), held[0], 51)]
        assert store.history(query("a", "other", "b.*", after=held[0] - 2)).missing == missing
        assert store.history(query("a", "**", after=held[0] - 1)).missing == []
        assert store.history(query("a", missing="none")).missing == []
        everything = store.history(query("a", "other", "none", missing="all")).missing
        assert [(each.oldest, each.newest) for each in everything] == [
            (held[0], 51),
            (1, 1),
            (None, None),
        ]


@pytest.mark.parametrize("keep", [9, 22, 25, 39])
def test_no_channel_exceeds_what_is_kept_by_more_than_a_tenth(place: Place, keep: int) -> None:
    with opened(place, keep=keep) as (store, _):
        for number in range(1, 3 * keep):
            put(store, "a", b"x")
            held = len(read(store, query("a")))
            assert min(number, keep) <= held <= keep + keep // 10


def test_one_append_of_more_than_is_kept(place: Place) -> None:
    with opened(place, keep=3) as (store, listener):
        assert put(store, "a", *[b"%d" % number for number in range(10)]) == Appended(1, 10)
        assert listener.order == list(range(1, 11))
        assert numbers(read(store, query("a"))) == [8, 9, 10]


def test_some_channels_keep_fewer(place: Place) -> None:
    store = open_event_store(place.address, EventLimits(100, DAY, events_of={"few": 3}))
    store.follow(Listener())
    for _ in range(20):
        put(store, "few", b"x")
        put(store, "many", b"x")
    assert 3 <= len(read(store, query("few"))) <= 4
    assert len(read(store, query("many"))) == 20
    store.close()


# -- several processes -----------------------------------------------------------------------------


@for_shared
def test_all_processes_are_given_all_events_in_one_order(shared: Place) -> None:
    with opened(shared) as (one, its), opened(shared) as (other, others):
        for each in (one, other):
            each.position()
        for index in range(100):
            put((one, other)[index % 2], "a", b"%d" % index)
        for listener in (its, others):
            listener.wait_for(100)
            assert listener.order == list(range(1, 101))
            assert [entry.frame for entry in listener.entries] == [b"%d" % n for n in range(100)]
        assert one.shared
        assert other.shared


@for_shared
def test_a_process_begins_at_the_end(shared: Place) -> None:
    with opened(shared) as (one, _):
        put(one, "a", b"1", b"2")
        with opened(shared) as (other, listener):
            assert put(other, "a", b"3") == Appended(3, 3)
            assert listener.started_at == [(one.position().epoch, 2)]
            assert listener.order == [3]
            assert numbers(read(other, query("a"))) == [1, 2, 3]


@for_shared
def test_what_another_process_has_stored_is_read_at_once(shared: Place) -> None:
    with opened(shared) as (one, _), opened(shared) as (other, _listener):
        for number in range(1, 51):
            put(one, "a", b"x")
            history = other.history(query("a", after=number - 1))
            assert numbers(history.entries) == [number]
            assert history.newest == number
            assert other.position().number == number


@for_shared
def test_keys_are_known_to_all_processes_and_later(shared: Place) -> None:
    with opened(shared) as (one, _), opened(shared) as (other, listener):
        other.position()
        put(one, "a", b"1", key="k")
        assert put(other, "a", b"1", key="k") == Appended(1, 1, repeated=True)
        listener.wait_for(1)
        assert listener.order == [1]
    with opened(shared) as (third, _):
        assert put(third, "a", b"1", key="k") == Appended(1, 1, repeated=True)
        assert third.append(Append("a", (b"2",), "k", b"2")) == KeyReused("k")


@for_shared
def test_a_process_that_closes_leaves_the_others_and_the_events(shared: Place) -> None:
    with opened(shared) as (one, _):
        with opened(shared) as (other, _listener):
            put(other, "a", b"1")
        assert put(one, "a", b"2") == Appended(2, 2)
        epoch = one.position().epoch
    with opened(shared) as (third, _):
        assert third.position() == (epoch, 2)
        assert numbers(read(third, query("a"))) == [1, 2]


# -- closing and counting subscriptions ------------------------------------------------------------


def test_a_close_comes_between_the_events_where_it_was_called(
    store: EventStore, listener: Listener
) -> None:
    put(store, "a", b"1")
    store.close_subscriptions([Pattern.parse("a"), Pattern.parse("b.*")])
    put(store, "a", b"2")
    store.close_subscriptions([Pattern.parse("**")])
    listener.wait_for("**")
    assert listener.order == [1, "a", "b.*", 2, "**"]
    assert numbers(read(store, query("**"))) == [1, 2]


@for_shared
def test_closes_are_in_the_same_places_for_all_processes(shared: Place) -> None:
    with ExitStack() as stack:
        several = [stack.enter_context(opened(shared)) for _ in range(3)]
        for store, _ in several:
            store.position()
        for index in range(30):
            put(several[index % 3][0], "a", b"x")
            several[index % 2][0].close_subscriptions([Pattern.parse(f"c.{index}")])
        for _, listener in several:
            listener.wait_for("c.29")
        orders = [listener.order for _, listener in several]
    expected: list[int | str] = []
    for index in range(30):
        expected += [index + 1, f"c.{index}"]
    assert orders == [expected] * 3


@for_shared
def test_counts_are_summed_over_all_processes(shared: Place) -> None:
    with opened(shared) as (one, its), opened(shared) as (other, others):
        for each in (one, other):
            each.position()
        its.subscriptions, others.subscriptions = 3, 4
        assert one.count_subscriptions(Pattern.parse("a")) == 7
        assert other.count_subscriptions(Pattern.parse("**")) == 7
        # They are no events.
        assert put(one, "a", b"1") == Appended(1, 1)
        assert its.order == [1]


def test_counting_alone(store: EventStore, listener: Listener) -> None:
    listener.subscriptions = 5
    assert store.count_subscriptions(Pattern.parse("a.*")) == 5


# -- health, errors, the end -----------------------------------------------------------------------


def test_what_it_says_of_itself(store: EventStore) -> None:
    assert store.health() == "available"
    assert store.extent().oldest == 0
    before = store.extent().bytes
    put(store, "a", b"x" * 1_000_000)
    assert store.extent().bytes >= before + 900_000
    assert 0 <= store.extent().oldest < SECONDS
    assert store.durability() in ("memory", "ephemeral", "disk")


def test_a_listener_that_fails_ends_nothing(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Listener):
        def events(self, entries: Sequence[Entry], since: float) -> None:
            super().events(entries, since)
            raise ZeroDivisionError

    store, listener = open_event_store(place.address, EventLimits(10, DAY)), Failing()
    store.follow(listener)
    assert put(store, "a", b"1") == Appended(1, 1)
    assert put(store, "a", b"2") == Appended(2, 2)
    assert listener.order == [1, 2]
    store.close()
    assert "ZeroDivisionError" in caplog.text


def test_after_the_end_all_is_refused(place: Place) -> None:
    with opened(place) as (store, listener):
        put(store, "a", b"1")
        store.close()
        store.close()
        for call in (
            lambda: put(store, "a", b"2"),
            lambda: store.history(query("a")),
            lambda: store.position(),
            lambda: store.close_subscriptions([Pattern.parse("a")]),
            lambda: store.count_subscriptions(Pattern.parse("a")),
        ):
            with pytest.raises(StoreError):
                call()
        assert store.health() == "unavailable"
        assert listener.order == [1]
