"""Moving between files and a real server: afterwards every answer is the same."""

from __future__ import annotations

import contextlib
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from unittest import mock

import hypothesis
import hypothesis.strategies as st
import pytest
from redis import Redis

from sseflask.store.api import (
    Append,
    Appended,
    EventLimits,
    EventStore,
    HistoryQuery,
    KeyReused,
    StoreError,
)
from sseflask.store.migration import Addresses, count, move, open_transfer
from sseflask.store.names import Pattern
from sseflask.store.open import (
    event_store_problem,
    open_event_store,
    open_run_store,
    run_store_problem,
)
from sseflask.store.run_api import Claim, Ending, RunAppend, RunLimits, RunStore, size_of
from sseflask.store.sqlite import event_tables
from sseflask.store.sqlite.event_database import EventDatabase
from sseflask.store.sqlite.event_transfer import MovedEvents
from sseflask.store.sqlite.run_database import RunDatabase
from sseflask.store.sqlite.transfer import SqliteTransfer
from sseflask.store.transfer import Counts, Transfer
from tests import memory, redis_server
from tests.clock import Clock
from tests.contract import event_stores, run_stores
from tests.contract.event_stores import DAY, Listener
from tests.redis_cluster import cluster, do, fail_over, paired, role

HOUR = 3600.0
EVENTS, RUNS = EventLimits(5, 10 * DAY), RunLimits(10 * DAY)

CHANNELS = ("a", "b.c", "b.d", "e.f.g", "h")
ASKED = (
    *(("a",), ("b.c",), ("e.f.g",), ("never",), ("b.*",), ("e.**",), ("**",)),
    *(("a", "b.d"), ("h", "b.*", "x.**")),
)


@pytest.fixture(scope="module", params=redis_server.programs())
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def url(kind: str) -> str:
    return redis_server.shared(kind).place()


def files(folder: Path | str) -> Addresses:
    return Addresses(str(Path(folder, "channels.sqlite3")), str(Path(folder, "runs.sqlite3")))


def transfers(source: Addresses, target: Addresses) -> tuple[Transfer, Transfer]:
    return open_transfer(source, EVENTS, RUNS), open_transfer(target, EVENTS, RUNS)


def moved(source: Addresses, target: Addresses) -> Counts:
    return move(*transfers(source, target), _nothing)


def _nothing(_moved: Counts, _wanted: Counts) -> None:
    pass


def counted(source: Addresses, target: Addresses) -> tuple[Counts, str]:
    return count(*transfers(source, target))


# -- what is moved ---------------------------------------------------------------------------------


@dataclass
class Made:
    """What there is to be asked."""

    keys: list[Append] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)  # of runs that have ended, with a key
    ids: list[str] = field(default_factory=list)  # of runs that have ended


Publish = tuple[str, int, bool]
Wait = float

steps_of_events = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(CHANNELS), st.integers(1, 4), st.booleans()),
        st.floats(1, 8 * HOUR),
        st.none(),
    ),
    max_size=25,
)


#: So many channels are empty that some are not known any more.
FORGOTTEN: list[Publish | Wait | None] = [
    *(("a", 1, False), ("b.c", 2, True), ("h", 1, False), 24 * HOUR, ("e.f.g", 1, False), None)
]


@dataclass
class RunToBe:
    appends: list[int]
    outcome: bytes | None
    frees_key: bool
    keyed: bool
    waits: float
    keep: float | None = None


runs_to_be = st.lists(
    st.builds(
        RunToBe,
        appends=st.lists(st.integers(1, 5), max_size=4),
        outcome=st.sampled_from([b"finished", b"stopped", b"failed", None]),
        frees_key=st.booleans(),
        keyed=st.booleans(),
        waits=st.floats(0, 5 * HOUR),
        keep=st.sampled_from([None, 5 * DAY, 90 * DAY]),
    ),
    max_size=6,
)


def make_events(path: str, steps: Sequence[Publish | Wait | None], made: Made) -> None:
    """Events as they are after some hours of which now is the end."""
    clock = Clock()
    clock.now = time.time() - sum(step for step in steps if isinstance(step, float))
    # Few events and channels are kept, so that all kinds of trimming happen.
    database = EventDatabase(path, EventLimits(4, 20 * HOUR), clock)
    database.open()
    number, keys = 0, list[tuple[float, Append]]()
    for step in steps:
        if step is None:
            while database.trim():
                pass
        elif isinstance(step, float):
            clock.now += step
        else:
            channel, amount, keyed = step
            number += 1
            frames = tuple(b"%d of %d" % (each, number) for each in range(amount))
            key = f"key {number}" if keyed else None
            append = Append(channel, frames, key, b"digest\x00 %d" % number)
            database.append([append])
            if keyed:
                keys.append((clock.now, append))
    database.close()
    made.keys += (append for at, append in keys if at > clock.now - DAY + 60)


def make_runs(path: str, runs: Sequence[RunToBe], made: Made, size_of_frames: int = 0) -> None:
    clock = Clock()
    clock.now = time.monotonic() - sum(run.waits for run in runs)
    database = RunDatabase(path, RUNS, Ending(b"interrupted"), clock)
    database.open()
    for number, each in enumerate(runs):
        key = f"key {number}" if each.keyed else None
        claim = Claim(
            f"{number:032x}", "alice", "acme", 100, "label", key, b"\x00 %d" % number, each.keep
        )
        claimed = database.claim(claim)
        assert isinstance(claimed, tuple)
        run, _ = claimed
        last, size = 0, 0
        for amount in each.appends:
            frames = [
                b"frame %d\xff" % (last + place) + bytes(size_of_frames) for place in range(amount)
            ]
            size += size_of(frames)
            notes = [b"notes %d" % place for place in range(amount)]
            database.append([RunAppend(run.key, last + 1, frames, notes, size)])
            last += amount
        clock.now += each.waits
        if each.outcome is not None:
            database.end(run.key, Ending(each.outcome, each.frees_key))
            made.ids.append(claim.id)
            if each.keyed and not (each.frees_key and not last):
                made.claims.append(claim)
    database.close()


# -- what is asked ---------------------------------------------------------------------------------


def events_of(address: str, made: Made, asked: Sequence[Sequence[str]] = ASKED) -> object:
    """What a store of events answers."""
    store = open_event_store(address, EventLimits(1000, 10 * DAY))
    listener = Listener()
    store.follow(listener)
    try:
        epoch, newest = store.position()
        answers: list[tuple[object, ...]] = []
        for texts in asked:
            patterns = tuple(map(Pattern.parse, texts))
            for after in range(0, newest + 2, 1 + newest // 200 * 100):
                first = store.history(HistoryQuery(patterns, after, 100))
                entries = event_stores.read(
                    store, HistoryQuery(patterns, after, 3 if newest < 200 else 100)
                )
                missing = sorted(first.missing, key=lambda each: str(each.pattern))
                answers.append((texts, after, entries, missing, first.epoch, first.newest))
            ends = store.history(HistoryQuery(patterns, 0, 1, "all")).missing
            answers.append((texts, sorted(ends, key=lambda each: str(each.pattern))))
        repeated = [store.append(append) for append in made.keys]
        reused = [
            store.append(Append(each.channel, each.frames, each.key, b"other"))
            for each in made.keys
        ]
        assert all(isinstance(each, Appended) and each.repeated for each in repeated)
        assert all(isinstance(each, KeyReused) for each in reused)
        return epoch, newest, answers, repeated
    finally:
        store.close()


def runs_of(address: str, made: Made) -> object:
    """What a store of runs answers, without the store's own names of runs."""
    store = open_run_store(address, RUNS, run_stores.ENDINGS)
    store.follow(run_stores.Listener())
    try:
        answers: list[object] = []
        for id in made.ids:
            run = store.find(id, "alice")
            assert store.find(id, "bob") is None
            assert run is not None
            frames = run_stores.everything(store, run)
            assert store.frames(run.key, 1, 2) == frames[1:3]
            answers.append((run._replace(key=None), frames, store.attach(run.key) == run))
        for claim in made.claims:
            again = store.claim(replace(claim, id="f" * 32))
            assert isinstance(again, tuple), again
            run, repeated = again
            answers.append((run._replace(key=None), repeated))
            answers.append(store.claim(replace(claim, id="e" * 32, digest=b"other")))
        return answers
    finally:
        store.close()


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(steps=steps_of_events, runs=runs_to_be)
@hypothesis.example(steps=FORGOTTEN, runs=[])
def test_all_answers_are_the_same_on_the_server_and_back(
    kind: str, steps: list[Publish | Wait | None], runs: list[RunToBe]
) -> None:
    made = Made()
    server = Addresses(*[redis_server.shared(kind).place()] * 2)
    with memory.directory() as directory, mock.patch.object(event_tables, "_EMPTY_CHANNELS", 1):
        first, back = files(Path(directory, "first")), files(Path(directory, "back"))
        make_events(first.events, steps, made)
        make_runs(first.runs, runs, made)
        counts = moved(first, server)
        unfinished = sum(each.outcome is None for each in runs)
        assert (counts.runs, counts.running) == (len(runs) - unfinished, unfinished)
        expected = events_of(first.events, made), runs_of(first.runs, made)
        assert (events_of(server.events, made), runs_of(server.runs, made)) == expected
        again = moved(server, back)
        counts.running = 0
        assert again == counts
        assert (events_of(back.events, made), runs_of(back.runs, made)) == expected


def test_numbers_that_a_server_may_have_lost(full: Addresses, url: str, tmp_path: Path) -> None:
    """After a restart it leaves many out: who knows one of them is told so, and nobody else."""
    server, back = Addresses(url, url), files(tmp_path / "back")
    moved(full, server)
    with client_of(url) as client:
        client.hset(f"{{{prefix_of(url)}}}:e:meta", "i", "another server")
    lost = missing_of(url)
    assert lost == [(0, 0), (2, 0), (3, 0), (4, 2), (10**8, 2)]
    moved(server, back)
    assert missing_of(back.events) == lost
    again = Addresses(f"{url}.again", f"{url}.again")
    moved(back, again)
    assert missing_of(again.events) == lost
    for address in (again.events, back.events):
        store = open_event_store(address, EVENTS)
        store.follow(Listener())
        appended = store.append(Append("a", (b"x",)))
        assert isinstance(appended, Appended)
        assert appended.first > 10**9
        store.close()
        assert missing_of(address) == lost


def missing_of(address: str) -> list[tuple[int, int]]:
    """After some numbers: of how many of two patterns events are missing."""
    store = open_event_store(address, EVENTS)
    store.follow(Listener())
    try:
        store.position()
        patterns = Pattern.parse("a"), Pattern.parse("b.*")
        return [
            (after, len(store.history(HistoryQuery(patterns, after, 10)).missing))
            for after in (0, 2, 3, 4, 10**8)
        ]
    finally:
        store.close()


def test_what_a_service_has_made_on_the_server(url: str, tmp_path: Path) -> None:
    """Among it a key that was freed, so that it is another run's."""
    server, back, made = Addresses(url, url), files(tmp_path / "back"), Made()
    store = open_runs(url)
    store.follow(run_stores.Listener())
    for number, frees_key in enumerate((True, False)):
        claim = Claim(f"{number:032x}", "alice", "acme", 10, "label", "key", b"digest")
        claimed = store.claim(claim)
        assert isinstance(claimed, tuple)
        assert not claimed[1]
        if not frees_key:
            run_stores.put(store, claimed[0], 1, 1500)
            store.wait_for_room(claimed[0].key)
            wait_until(partial(store.frames, claimed[0].key, 1499, 1))
        store.end(claimed[0].key, Ending(b"stopped", frees_key))
        made.ids.append(claim.id)
    made.claims.append(claim)
    store.claim(replace(claim, id="2" * 32, key=None))  # it goes on when the service is stopped
    store.leave()
    expected = runs_of(url, made)
    store.close()
    assert moved(server, back).runs == 3
    assert runs_of(back.runs, made) == expected


# -- ages ------------------------------------------------------------------------------------------


def left_of(url: str, *names: str) -> list[float]:
    """For how many hours the server keeps its keys that end so."""
    with client_of(url) as client:
        keys = [key.decode() for key in client.scan_iter(f"{{{prefix_of(url)}}}:*")]
        found = [[key for key in keys if key.endswith(name)] for name in names]
        return [client.pttl(key) / 3_600_000 for (key,) in found]


def client_of(url: str) -> Redis:
    return Redis(unix_socket_path=url.removeprefix("unix://").partition("?")[0])


def prefix_of(url: str) -> str:
    return url.partition("prefix=")[2]


def keys_of(url: str) -> list[bytes]:
    """All keys at a place."""
    with client_of(url) as client:
        return list(client.scan_iter(f"{{{prefix_of(url)}}}:*"))


def test_ages_count_on(url: str, tmp_path: Path) -> None:
    """What is 20 hours old, of the 24 for which it is kept, is kept for 4 more."""
    limits = EventLimits(5, DAY), RunLimits(DAY)
    first, server, back = files(tmp_path), Addresses(url, url), files(tmp_path / "back")
    make_events(first.events, [("a", 2, True), 20 * HOUR, ("b.c", 1, False)], Made())
    made = Made()
    ended = RunToBe([1], b"finished", False, True, 0)
    make_runs(first.runs, [ended, replace(ended, outcome=None, waits=20 * HOUR)], made)
    move(open_transfer(first, *limits), open_transfer(server, *limits), _nothing)
    names = ":channel:a", ":channel:b.c", ":key:key 1", f":run:{made.ids[0]}", "r:key:key 0"
    assert left_of(url, *names) == pytest.approx([4, 24, 4, 4, 4], abs=0.1)
    move(open_transfer(server, *limits), open_transfer(back, *limits), _nothing)
    later = time.time() + 4.2 * HOUR
    database = EventDatabase(back.events, limits[0], lambda: later)
    database.open()
    while database.trim():
        pass
    assert [entry.channel for entry in database.since(0, 10)] == ["b.c"]
    database.close()
    clock = Clock()
    clock.now = time.monotonic() + 3.9 * HOUR
    runs = RunDatabase(back.runs, limits[1], Ending(b""), clock)
    runs.open()
    assert runs.find(made.ids[0], "alice") is not None
    clock.now += 0.2 * HOUR
    assert runs.find(made.ids[0], "alice") is None
    runs.close()


def test_runs_are_kept_as_long_as_their_claims_say(url: str, tmp_path: Path) -> None:
    """One that is over by then is left behind."""
    limits = EventLimits(5, DAY), RunLimits(DAY)
    first, server, back = files(tmp_path), Addresses(url, url), files(tmp_path / "back")
    make_events(first.events, [], Made())
    ended, made = RunToBe([1], b"finished", False, True, 0), Made()
    runs = [replace(ended, keep=hours * HOUR) for hours in (50, 21, 19)]
    make_runs(first.runs, [*runs, replace(ended, outcome=None, waits=20 * HOUR)], made)
    counts = move(open_transfer(first, *limits), open_transfer(server, *limits), _nothing)
    assert counts.runs == 2
    names = f":run:{made.ids[0]}", "r:key:key 0", f":run:{made.ids[1]}"
    assert left_of(url, *names) == pytest.approx([30, 30, 1], abs=0.1)
    assert counted(server, files(tmp_path / "again"))[0].runs == 2
    assert move(open_transfer(server, *limits), open_transfer(back, *limits), _nothing).runs == 2
    clock = Clock()
    for hours, there in ((0.9, [True, True]), (1.1, [True, False]), (30.1, [False, False])):
        clock.now = time.monotonic() + hours * HOUR
        database = RunDatabase(back.runs, limits[1], Ending(b""), clock)
        database.open()
        found = [database.find(id, "alice") for id in made.ids[:2]]
        database.close()
        assert [run is not None for run in found] == there


def test_the_age_of_the_last_events_of_a_server(full: Addresses, url: str, tmp_path: Path) -> None:
    """Of these the time is noted only when others come."""
    moved(full, Addresses(url, url))
    with client_of(url) as client:
        meta = f"{{{prefix_of(url)}}}:e:meta"
        generation = client.hget(meta, "g").decode()
        client.delete(f"{{{prefix_of(url)}}}:e:{generation}:times")
        client.hset(meta, "t", str(time.time() - 20 * HOUR))
    back = files(tmp_path / "back")
    moved(Addresses(url, url), back)
    database = EventDatabase(back.events, EVENTS)
    database.open()
    assert database.extent().oldest == pytest.approx(20 * HOUR, abs=30)
    database.close()


# -- what is refused -------------------------------------------------------------------------------


@pytest.fixture
def full(tmp_path: Path) -> Addresses:
    """Files with something in them."""
    found = files(tmp_path / "full")
    make_events(found.events, [("a", 2, True), ("b.c", 1, False)], Made())
    make_runs(found.runs, [RunToBe([2, 1], b"finished", False, True, 0)], Made())
    return found


def test_a_place_that_is_not_empty(full: Addresses, url: str, tmp_path: Path) -> None:
    server, other = Addresses(url, url), files(tmp_path / "other")
    moved(full, server)
    make_events(other.events, [("a", 1, False)], Made())
    for source, target, said in (
        (full, server, rf"is not empty.*\{{{prefix_of(url)}\}}:e: "),
        (server, full, "channels.sqlite3 is not empty.*delete it"),
        (server, other, "channels.sqlite3 is not empty"),
    ):
        assert count_matches(source, target, said)
        before = sorted(keys_of(url))
        with pytest.raises(StoreError, match=said):
            moved(source, target)
        assert sorted(keys_of(url)) == before


def count_matches(source: Addresses, target: Addresses, said: str) -> bool:
    return re.search(said, counted(source, target)[1]) is not None


def test_runs_alone_are_something(full: Addresses, url: str) -> None:
    moved(full, Addresses(url, url))
    with client_of(url) as client:
        client.delete(f"{{{prefix_of(url)}}}:e:meta")
    with pytest.raises(StoreError, match="is not empty"):
        moved(full, Addresses(url, url))


def test_nothing_is_there(url: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"neither .*channels.sqlite3 nor .*runs.sqlite3 is there"):
        moved(files(tmp_path), Addresses(url, url))
    with pytest.raises(StoreError, match=f"has nothing with the prefix {prefix_of(url)}"):
        moved(Addresses(url, url), files(tmp_path))
    assert list(tmp_path.iterdir()) == []
    assert keys_of(url) == []


@pytest.mark.parametrize("missing", ["events", "runs"])
def test_one_of_two_files(full: Addresses, url: str, tmp_path: Path, missing: str) -> None:
    Path(getattr(full, missing)).unlink()
    counts = moved(full, Addresses(url, url))
    assert (counts.events, counts.runs) == ((0, 1) if missing == "events" else (3, 0))
    assert moved(Addresses(url, url), files(tmp_path / "back")) == counts


@pytest.mark.parametrize("mark", ["user_version = 99", "application_id = 7"])
def test_a_file_of_another_format(full: Addresses, url: str, mark: str) -> None:
    with contextlib.closing(sqlite3.connect(full.runs)) as database:
        database.execute(f"PRAGMA {mark}")
        database.commit()
    with pytest.raises(StoreError, match=r"a newer version|another program's database"):
        moved(full, Addresses(url, url))
    assert keys_of(url) == []


@pytest.mark.parametrize("which", ["events", "runs"])
def test_files_that_are_in_use(full: Addresses, url: str, which: str) -> None:
    store: EventStore | RunStore
    if which == "events":
        store = open_event_store(full.events, EVENTS)
        store.follow(Listener())
    else:
        store = open_runs(full.runs)
        store.follow(run_stores.Listener())
    wait_until(lambda: store.health() == "available")
    # Counting does not hinder it.
    assert counted(full, Addresses(url, url))[1] == ""
    with (
        mock.patch("sseflask.store.sqlite.file._BUSY_SECONDS", 0.1),
        pytest.raises(StoreError, match="is in use: stop the service"),
    ):
        moved(full, Addresses(url, url))
    store.close()
    assert moved(full, Addresses(url, url)).events == 3


def open_runs(address: str) -> RunStore:
    return open_run_store(address, RUNS, run_stores.ENDINGS)


def wait_until(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_server_that_is_in_use(full: Addresses, url: str, tmp_path: Path) -> None:
    server = Addresses(url, url)
    store = open_event_store(url, EVENTS)
    store.follow(Listener())
    store.position()
    with mock.patch("sseflask.store.redis.transfer._LEAVING_SECONDS", 0.5):
        with pytest.raises(StoreError, match="is in use by a process: stop the service"):
            moved(full, server)
        store.append(Append("a", (b"x",)))
        with pytest.raises(StoreError, match="is in use by a process: stop the service"):
            moved(server, files(tmp_path / "back"))
    store.close()
    assert moved(server, files(tmp_path / "back")).events == 1


def test_a_server_that_is_used_meanwhile(full: Addresses, url: str, tmp_path: Path) -> None:
    """What was published after its place was read is not lost silently."""
    server, back = Addresses(url, url), files(tmp_path / "back")
    moved(full, server)
    here, there = transfers(server, back)

    def publish(moved: Counts, _wanted: Counts) -> None:
        if moved.keys or moved.runs:
            return
        store = open_event_store(url, EVENTS)
        store.follow(Listener())
        store.append(Append("a", (b"x",)))
        store.close()

    with pytest.raises(StoreError, match="was used meanwhile"):
        move(here, there, publish)
    assert moved(server, back).events > 3


def test_no_room(full: Addresses, program: str) -> None:
    with redis_server.running(program) as running:
        server = Addresses(running.url, running.url)
        with running.client() as client:
            client.config_set("maxmemory", client.info("memory")["used_memory"] + 500)
            with pytest.raises(StoreError, match=r"0 MiB left \(maxmemory\), and about 1 are need"):
                moved(full, server)
            assert client.dbsize() == 0


@pytest.fixture(params=redis_server.programs())
def program(request: pytest.FixtureRequest) -> str:
    return redis_server.programs()[request.param]


def test_the_rights_of_the_service_suffice(full: Addresses, program: str, tmp_path: Path) -> None:
    rights = (
        "on >secret resetkeys ~{shop}:* -@all +@read +@write +@connection +@scripting"
        " -@dangerous +info +time"
    )
    with redis_server.running(program) as running:
        with running.client() as client:
            client.execute_command("ACL", "SETUSER", "shop", *rights.split())
            client.execute_command("ACL", "SETUSER", "default", "off")
        url = f"unix://shop:secret@{running.socket}?prefix=shop"
        server, back = Addresses(url, url), files(tmp_path / "back")
        kill_in_the_middle(full, server, 0)
        with Redis(unix_socket_path=running.socket, username="shop", password="secret") as client:
            client.delete("{shop}:moving:alive")  # or it would wait for 15 s
        counts = moved(full, server)
        assert moved(server, back) == counts


@pytest.fixture
def large(tmp_path: Path) -> Addresses:
    """Files with some MiB."""
    found = files(tmp_path / "large")
    database = EventDatabase(found.events, EventLimits(10_000, DAY))
    database.open()
    for number in range(300):
        frames = tuple(b"%d %d %s" % (number, each, bytes(1000)) for each in range(30))
        database.append([Append(f"c{number % 7}", frames, f"key {number}", b"digest")])
    database.close()
    make_runs(found.runs, [RunToBe([2000], b"finished", False, True, 0)], Made(), 1000)
    return found


def test_the_memory_is_full_in_the_middle(large: Addresses, program: str) -> None:
    """As another application uses it too: what was copied is gone again."""
    with redis_server.running(program) as running, running.client() as client:
        server = Addresses(running.url, running.url)
        client.set("theirs", "x")

        def fill(moved: Counts, _wanted: Counts) -> None:
            if moved.events > 3000 and client.config_get("maxmemory")["maxmemory"] == "0":
                client.config_set("maxmemory", client.info("memory")["used_memory"])

        with pytest.raises(StoreError, match=r"memory of the Redis server .* is full"):
            move(*transfers(large, server), fill)
        assert client.keys() == [b"theirs"]
        client.config_set("maxmemory", 0)
        assert moved(large, server).events == 9000


def test_the_server_is_flushed_in_the_middle(large: Addresses, program: str) -> None:
    with redis_server.running(program) as running, running.client() as client:
        server = Addresses(running.url, running.url)

        def flush(moved: Counts, _wanted: Counts) -> None:
            if moved.events >= 5000:
                client.flushall()

        def flush_at_the_end(moved: Counts, _wanted: Counts) -> None:
            if moved.runs:
                client.flushall()

        for progress in (flush, flush_at_the_end):
            with pytest.raises(StoreError, match="was flushed, or another process moves to it"):
                move(*transfers(large, server), progress)


def test_the_server_evicts_what_is_given_to_it(large: Addresses, url: str) -> None:
    """Half a run is never there."""

    def evict(moved: Counts, _wanted: Counts) -> None:
        if 1000 <= moved.frames < 1500:
            with client_of(url) as client:
                assert client.delete(f"{{{prefix_of(url)}}}:r:run:{'0' * 32}")

    with pytest.raises(StoreError, match="throws away what it was given"):
        move(*transfers(large, Addresses(url, url)), evict)
    assert keys_of(url) == []


@pytest.mark.parametrize("back", [False, True])
def test_a_move_that_is_interrupted_leaves_nothing(
    large: Addresses, url: str, tmp_path: Path, back: bool
) -> None:
    source, target = large, Addresses(url, url)
    if back:
        moved(source, target)
        source, target = target, files(tmp_path / "back")

    def interrupt(moved: Counts, _wanted: Counts) -> None:
        if moved.runs or moved.frames:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        move(*transfers(source, target), interrupt)
    if not back:
        assert keys_of(url) == []
    assert moved(source, target).events == 9000


# -- servers that belong together ------------------------------------------------------------------


def test_in_a_cluster(large: Addresses, tmp_path: Path) -> None:
    """Also if the slot moves, or another node takes over: it fails with a word, or all is there."""
    with cluster(redis_server.redis(), masters=2) as made:
        server, back = Addresses(made.url, made.url), files(tmp_path / "back")
        source, target = made.masters
        begun: list[bool] = []
        # Those of which nothing is heard any more, as they can't be asked for by their names.
        kinds: tuple[bytes, ...] = b":channel:", b":key:"

        def move_the_slot(moved: Counts, wanted: Counts) -> None:
            if moved.events >= wanted.events and not begun:
                begun.append(True)
                made.begin_to_move(source, target)
                keys = [key for key in made.keys(source) if any(kind in key for kind in kinds)]
                made.move_keys(source, target, keys)

        with pytest.raises(StoreError, match="moves what it has to another server"):
            move(*transfers(large, server), move_the_slot)
        made.end_move(source, target)
        (alive,) = (key for key in made.keys(target) if key.endswith(b":moving:alive"))
        do(target, "DEL", alive)  # or it would wait for 15 s
        counts = moved(large, server)
        assert (counts.events, counts.keys, counts.runs) == (9000, 300, 1)

        source, target = target, source
        begun.clear()
        kinds = (b":key:",)
        with made.masters[1].client() as client:  # there was a process that has died
            (meta,) = client.keys("*:meta")
            generation = client.hget(meta, "g").decode()
            client.zadd(f"{{{made.prefix}}}:e:{generation}:here", {"dead": 1.0})
            client.zadd(f"{{{made.prefix}}}:r:processes", {"dead": 1.0})
        with pytest.raises(StoreError, match="moves what it has to another server"):
            move(*transfers(server, back), move_the_slot)
        made.end_move(source, target)
        assert moved(server, back) == counts

        def hand_over(moved: Counts, _wanted: Counts) -> None:
            if moved.frames and role(made.replica) != "master":
                fail_over(made.replica)

        with pytest.raises(StoreError, match="another one has the keys"):
            move(*transfers(server, files(tmp_path / "again")), hand_over)
        assert moved(server, files(tmp_path / "again")) == counts


def test_the_master_is_lost_in_the_middle(large: Addresses, tmp_path: Path) -> None:
    """A service finds the mark on the server that a Sentinel names then, or nothing at all."""
    with paired(tmp_path) as pair:
        server, back = Addresses(pair.url, pair.url), files(tmp_path / "back")

        def lose(moved: Counts, _wanted: Counts) -> None:
            if moved.events >= 5000 and role(pair.replica) != "master":
                pair.part()
                pair.take_over()

        with pytest.raises(StoreError, match="can't be reached"):
            move(*transfers(large, server), lose)
        assert do(pair.replica, "KEYS", "*") == []
        counts = moved(large, server)
        assert moved(server, back) == counts


# -- a move that dies ------------------------------------------------------------------------------


def kill_in_the_middle(source: Addresses, target: Addresses, frames: int = 1000) -> None:
    """Move in another process, which gets SIGKILL after so many frames of runs."""
    program = (
        "import sys, time; from tests.unit.store.test_migration import *\n"
        "where = [Addresses(*sys.argv[1:3]), Addresses(*sys.argv[3:5])]\n"
        "def wait(moved, wanted):\n"
        f"    if moved.frames >= {frames}:\n"
        "        print(flush=True)\n"
        "        time.sleep(60)\n"
        "move(*(open_transfer(each, EVENTS, RUNS) for each in where), wait)"
    )
    command = [sys.executable, "-c", program, *source, *target]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    assert said, "it has ended by itself"


def test_a_server_with_half_of_it_is_not_used(large: Addresses, url: str) -> None:
    server, first = Addresses(url, url), Made()
    kill_in_the_middle(large, server)
    assert any(b":r:run:" in key for key in keys_of(url))
    # A service that is started now says why not, and goes on as soon as all is there.
    store = open_event_store(url, EVENTS)
    store.follow(Listener())
    runs = open_runs(url)
    runs.follow(run_stores.Listener())
    with pytest.raises(StoreError, match="is not complete: sseflask migrate is at work"):
        store.history(HistoryQuery((Pattern.parse("**"),), 0, 10))
    with pytest.raises(StoreError, match="is not complete"):
        store.append(Append("a", (b"x",)))
    with pytest.raises(StoreError, match="is not complete"):
        runs.find("0" * 32, "alice")
    assert store.health() == runs.health() == "unavailable"
    with pytest.raises(StoreError, match="is not complete"):
        counted(server, files("/nowhere"))
    with client_of(url) as client:
        client.delete(f"{{{prefix_of(url)}}}:moving:alive")  # or it would wait for 15 s
    assert moved(large, server).events == 9000
    wait_until(lambda: store.health() == "available" and runs.health() == "available")
    assert runs.find("0" * 32, "alice") is not None
    assert store.position().number == 9000
    runs.close()
    store.close()
    asked, run = ASKED[-3:], Made(ids=["0" * 32])
    assert events_of(url, first, asked) == events_of(large.events, first, asked)
    assert runs_of(url, run) == runs_of(large.runs, run)


def test_files_with_half_of_it_are_not_used(large: Addresses, url: str, tmp_path: Path) -> None:
    server, back = Addresses(url, url), files(tmp_path / "back")
    moved(large, server)
    kill_in_the_middle(server, back)
    assert Path(back.events).exists()
    assert Path(back.runs).exists()
    store = open_event_store(back.events, EVENTS)
    store.follow(Listener())
    with pytest.raises(StoreError, match="is not complete, as a move was broken off"):
        store.history(HistoryQuery((Pattern.parse("**"),), 0, 10))
    store.close()
    with pytest.raises(StoreError, match="is not complete"):
        moved(back, Addresses(f"{url}x", f"{url}x"))
    assert "is not complete" in event_store_problem(back.events)
    assert moved(server, back).events == 9000
    asked, run = ASKED[-3:], Made(ids=["0" * 32])
    assert events_of(back.events, Made(), asked) == events_of(large.events, Made(), asked)
    assert runs_of(back.runs, run) == runs_of(large.runs, run)


def test_a_move_that_dies_at_its_very_end(full: Addresses, url: str, tmp_path: Path) -> None:
    """Of two files one was finished."""
    server, back = Addresses(url, url), files(tmp_path / "back")
    moved(full, server)
    here, there = transfers(server, back)
    with (
        mock.patch.object(MovedEvents, "finish", side_effect=SystemExit),
        mock.patch.object(SqliteTransfer, "abandon"),
        pytest.raises(SystemExit),
    ):
        move(here, there, _nothing)
    assert run_store_problem(back.runs) == ""
    assert "is not complete" in event_store_problem(back.events)
    moved(server, back)
    assert runs_of(back.runs, Made(ids=["0" * 32])) == runs_of(full.runs, Made(ids=["0" * 32]))
    assert events_of(back.events, Made()) == events_of(full.events, Made())


def test_two_at_once(large: Addresses, url: str, full: Addresses) -> None:
    server = Addresses(url, url)
    said: list[str] = []

    def move_too(so_far: Counts, _wanted: Counts) -> None:
        if so_far.events >= 5000 and not said:
            with (
                mock.patch("sseflask.store.redis.transfer._ALIVE_SECONDS", 0.1),
                pytest.raises(StoreError) as raised,
            ):
                moved(full, server)
            said.append(str(raised.value))

    here, there = transfers(large, server)
    assert move(here, there, move_too).events == 9000
    assert len(said) == 1
    assert said[0].startswith("another process moves to the Redis server")
