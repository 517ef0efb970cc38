"""Another server takes the master's place: runs go on, or end as what is known of them says."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from sseflask.store.api import StoreError
from sseflask.store.redis import run_news, run_scripts
from sseflask.store.redis.rate_counter import RedisRateCounter
from sseflask.store.redis.run_store import RedisRunStore
from sseflask.store.run_api import Claim, Run
from tests import redis_server
from tests.contract.run_stores import (
    FINISHED,
    STOPPED,
    begun,
    everything,
    fresh,
    numbered,
    put,
)
from tests.live.kit.waiting import until
from tests.processes import line, process
from tests.redis_cluster import Pair, cluster, fail_over, paired, role
from tests.unit.store.redis.run_processes import write
from tests.unit.store.redis.test_run_store import Process, running

#: Frames of a run that is written meanwhile.
FRAMES = 400


@contextmanager
def machines(url: str) -> Iterator[tuple[Process, Process]]:
    """Two processes: each with a connection of its own."""
    with running(url) as own, running(f"{url}&socket_timeout=6") as other:
        yield own, other


class Writers:
    """Runs of two processes that are written while something happens, and watched in both."""

    def __init__(self, processes: Sequence[Process]) -> None:
        self._processes = processes
        self.runs = [(store, begun(store)) for store, _ in processes for _ in range(3)]
        for _, run in self.runs:
            for store, _ in processes:
                store.attach(run.key)
        self._go_on = threading.Event()
        self._far = [0] * len(self.runs)
        self._threads = [
            threading.Thread(target=self._write, args=(number, *each))
            for number, each in enumerate(self.runs)
        ]
        for thread in self._threads:
            thread.start()

    def _write(self, number: int, store: RedisRunStore, run: Run) -> None:
        while not self._go_on.wait(0.005) or self._far[number] < FRAMES:
            self._far[number] += 1
            store.wait_for_room(run.key)
            put(store, run, self._far[number], 1)
        put(store, run, self._far[number] + 1, 0, FINISHED)

    def finish(self) -> None:
        self._go_on.set()
        for thread in self._threads:
            thread.join(60)

    def check(self) -> None:
        """All frames have come to all, each once."""
        for number, (_, run) in enumerate(self.runs):
            for store, listener in self._processes:
                ended = listener.wait_for_end(run)
                assert (ended.outcome, ended.last) == (b"finished", self._far[number])
                assert listener.seen[run.key] == numbered(1, ended.last)
                assert everything(store, run) == numbered(1, ended.last)
        for _, listener in self._processes:
            assert listener.gone == []
            assert len(listener.ends) == len(self.runs)


def claimed_when_possible(store: RedisRunStore, claim: Claim) -> tuple[Run, bool]:
    found: list[tuple[Run, bool]] = []

    def claims() -> bool:
        try:
            claimed = store.claim(claim)
        except StoreError:
            return False
        assert isinstance(claimed, tuple)
        found.append(claimed)
        return True

    until(claims, "the store to be back", seconds=30.0)
    return found[0]


def test_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """The slot moves while runs are written; its master hands over, and is killed."""
    monkeypatch.setattr(run_scripts, "DEAD_SECONDS", 2.0)
    with cluster(redis_server.redis(), masters=3) as made, ExitStack() as stack:
        own, other = stack.enter_context(machines(made.url))
        counters = [
            stack.enter_context(closing(RedisRateCounter(url)))
            for url in (made.url, f"{made.url}&client_name=other")
        ]
        writer = stack.enter_context(process(write, made.url, 2))
        dying = line(writer).split()
        for run in dying:
            assert other[0].attach(run) is not None
        assert [each.count("a", 3, 60) for each in counters] == [0, 0]
        keyed = begun(own[0], fresh("k"))

        source, target, _ = made.masters
        writers = Writers((own, other))
        made.begin_to_move(source, target)
        made.move_keys(source, target, made.keys(source)[::2])
        with pytest.raises(StoreError):
            other[0].claim(fresh())
        made.end_move(source, target)
        assert claimed_when_possible(other[0], fresh("k")) == (keyed, True)
        until(lambda: counters[0].count("a", 3, 60) == 0, "the counter to be back")
        assert counters[1].count("a", 3, 60), "all are counted"

        made.begin_to_move(target, source)
        made.end_move(target, source)
        assert claimed_when_possible(own[0], fresh("k")) == (keyed, True)
        fail_over(made.replica)
        assert claimed_when_possible(other[0], fresh("k")) == (keyed, True)
        writers.finish()
        writers.check()

        with closing(made.replica.client()) as client:
            until(lambda: client.wait(1, 1000) == 1, "the other one to have it all")
        writer.kill()
        made.replica.stop(signal.SIGKILL)
        until(lambda: role(source) == "master", "the other one to be the master")
        for run in dying:
            other[1].wait(lambda run=run: other[1].ended_as(run), "it has ended")  # type: ignore[misc]  # mypy knows no default of a lambda
            assert [each.outcome for each in other[1].ended_as(run)] == [b"interrupted"]
        put(own[0], keyed, 1, 2, FINISHED)
        assert own[1].wait_for_end(keyed).last == 2
        assert claimed_when_possible(other[0], fresh("k")) == (own[1].ended_as(keyed.key)[0], True)


def test_a_master_is_killed_and_a_sentinel_sees_to_it(tmp_path: Path) -> None:
    with paired(tmp_path, down_after=500) as pair, machines(pair.url) as (own, other):
        keyed = begun(own[0], fresh("k"))
        until(lambda: pair.sentinel.do("REPLICAS", "main"), "the Sentinel to know the replica")
        writers = Writers((own, other))
        with closing(pair.master.client()) as client:
            client.client_pause(10_000, all=False)  # no writes
            until(lambda: client.wait(1, 1000) == 1, "the replica to have everything")
        pair.master.stop()
        until(lambda: role(pair.replica) == "master", "the replica to be the master")
        assert claimed_when_possible(other[0], fresh("k")) == (keyed, True)
        writers.finish()
        writers.check()


def test_a_run_that_lost_frames_ends_though_its_writer_has_nothing_to_add(pair: Pair) -> None:
    with machines(pair.url) as (own, other):
        run = begun(own[0])
        other[0].attach(run.key)
        put(own[0], run, 1, 3)
        own[1].wait_for_frame(run, 3)
        pair.part()
        put(own[0], run, 4, 2)
        for _, listener in (own, other):
            listener.wait_for_frame(run, 5)
        pair.take_over()
        ended = own[1].wait_for_end(run)
        # A client that has frame 4 or 5 has not got the end.
        assert (ended.outcome, ended.last, ended.ended) == (b"interrupted", 3, 6)
        assert other[1].wait_for_end(run) == ended
        assert everything(other[0], run) == numbered(1, 3)
        for listener in (own[1], other[1]):
            assert listener.seen[run.key] == numbered(1, 5)
            assert listener.gone == []


def test_a_run_that_lost_frames_and_its_writer_is_not_inherited(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The heir would give the numbers of frames that clients have to others."""
    with machines(pair.url) as (own, other), running(f"{pair.url}&socket_timeout=7") as writer:
        run = begun(writer[0], fresh(successor=b"go on"))
        own[0].attach(run.key)
        put(writer[0], run, 1, 3)
        writer[1].wait_for_frame(run, 3)
        pair.part()
        put(writer[0], run, 4, 2)
        own[1].wait_for_frame(run, 5)
        alive, connect = threading.Event(), writer[0]._server.address.connect

        def connect_later() -> object:
            alive.wait(30)
            return connect()

        monkeypatch.setattr(writer[0]._server.address, "connect", connect_later)
        pair.take_over()
        ended = own[1].wait_for_end(run)
        assert (ended.outcome, ended.last, ended.ended) == (b"interrupted", 3, 6)
        assert own[1].seen[run.key] == numbered(1, 5)
        assert own[1].inheritance == other[1].inheritance == []
        alive.set()
        assert writer[1].wait_for_end(run) == ended


def test_a_run_that_lost_nothing_goes_on(pair: Pair) -> None:
    with machines(pair.url) as (own, other):
        run = begun(own[0])
        other[0].attach(run.key)
        put(own[0], run, 1, 3)
        other[1].wait_for_frame(run, 3)
        pair.part()
        pair.take_over()
        put(own[0], run, 4, 1)
        other[1].wait_for_frame(run, 4)
        put(own[0], run, 5, 0, FINISHED)
        assert own[1].wait_for_end(run) == other[1].wait_for_end(run)
        assert own[1].seen[run.key] == other[1].seen[run.key] == numbered(1, 4)
        assert own[1].gone == other[1].gone == []


def test_a_claim_that_was_lost(pair: Pair) -> None:
    """Its writer and its viewers are told, and a repetition begins another run."""
    with machines(pair.url) as (own, other):
        begun(own[0])
        pair.part()
        run = begun(own[0], fresh("k"))
        other[0].attach(run.key)
        put(own[0], run, 1, 2)
        for _, listener in (own, other):
            listener.wait_for_frame(run, 2)
        pair.take_over()
        for _, listener in (own, other):
            listener.wait(lambda listener=listener: listener.gone, "it is told")  # type: ignore[misc]  # mypy knows no default of a lambda
            assert listener.gone == [(run.key, None)]
            assert listener.seen[run.key] == numbered(1, 2)
        again, known = claimed_when_possible(other[0], fresh("k"))
        assert (again.key != run.key, known) == (True, False)


def test_a_viewer_whose_coming_was_lost_gets_the_rest(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once: not only when it looks at each run in turn."""
    with machines(pair.url) as (own, other):
        run = begun(own[0])
        put(own[0], run, 1, 1)
        other[0].attach(begun(own[0]).key)
        until(lambda: not other[0]._news.entered_again, "the server to know it")
        pair.part()
        other[0].attach(run.key)
        monkeypatch.setattr(run_news, "_LOOK_AT", 0)
        pair.take_over()
        put(own[0], run, 2, 1)
        other[1].wait_for_frame(run, 2)
        put(own[0], run, 3, 0, FINISHED)
        assert other[1].wait_for_end(run).last == 2
        assert other[1].seen[run.key] == numbered(2, 1)


def test_an_end_that_was_lost(pair: Pair) -> None:
    """If all frames are there it is what it was; a client is not told anything else afterwards."""
    with machines(pair.url) as (own, other):
        whole, stopped, short = (begun(own[0], fresh(each)) for each in "abc")
        for run in (whole, stopped, short):
            put(own[0], run, 1, 2)
            own[1].wait_for_frame(run, 2)
        pair.part()
        put(own[0], short, 3, 1)
        for run in (whole, short):
            put(own[0], run, 4 if run == short else 3, 0, FINISHED)
        other[0].end(stopped.key, STOPPED)
        for run in (whole, stopped, short):
            own[1].wait_for_end(run)
        pair.take_over()
        now = {}
        for run, key in ((whole, "a"), (stopped, "b"), (short, "c")):
            found, known = claimed_when_possible(other[0], fresh(key))
            assert (found.key, known) == (run.key, True)
            other[0].attach(run.key)
            until(
                lambda run=run: (found := other[0].find(run.id, "alice")) and found.ended,  # type: ignore[misc]  # mypy knows no default of a lambda
                "it has ended",
                seconds=5.0,
            )
            now[key] = other[0].find(run.id, "alice")
        assert now["a"] == own[1].ended_as(whole.key)[0]
        assert now["b"] == own[1].ended_as(stopped.key)[0]
        assert now["c"] is not None
        assert (now["c"].outcome, now["c"].last) == (b"interrupted", 2)
        for run in (whole, stopped, short):
            assert len(own[1].ended_as(run.key)) == 1


def test_a_writer_that_is_lost_with_the_master(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has seen more than the replica is told that the run was interrupted."""
    monkeypatch.setattr(run_scripts, "DEAD_SECONDS", 1.0)
    with running(pair.url) as own, ExitStack() as stack:
        begun(own[0])  # from here on processes are looked after
        writer = stack.enter_context(process(write, pair.url, 1))
        key = line(writer)
        pair.part()
        seen = own[0].attach(key)
        assert seen is not None
        assert seen.last == 1
        writer.kill()
        pair.take_over()
        ended = own[1].wait_for_end(seen)
        assert (ended.outcome, ended.last) == (b"interrupted", 1)
