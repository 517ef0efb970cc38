"""The figures of two workers, as Prometheus scrapes them: what clients got, and what a death costs.

The service as a platform starts it.
"""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.live.kit.clients import Stream, open_stream
from tests.live.kit.connection import fetch
from tests.live.kit.publishing import error_of, post, publish_all
from tests.live.kit.servers import Server
from tests.live.kit.services import SECRET, authorization, make_token, production
from tests.live.kit.stores import Store, on_every_store
from tests.live.kit.waiting import until
from tests.live.kit.workers import worker_of

Figures = dict[tuple[str, ...], float]

pytestmark = on_every_store


@pytest.fixture(scope="module")
def rights() -> dict[str, str]:
    """The header of a client that may do everything with channels."""
    return authorization(make_token("--publish", "**", "--subscribe", "**"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, store: Store) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("metrics")
    settings = {
        **store(directory),
        "SSEFLASK_SECRET": SECRET,
        "SSEFLASK_PAGE": "true",
        "WEB_CONCURRENCY": "2",
        "SSEFLASK_HEARTBEAT": "3600",  # its bytes would be counted as well
    }
    with production(directory, settings) as started:
        yield started


def scrape(server: Server, rights: dict[str, str]) -> Figures:
    """By name and values of labels."""
    response = fetch(server, "/metrics", headers=rights)
    assert response.status == 200
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(response.body.decode())
        for sample in family.samples
    }


def counters(figures: Figures) -> Figures:
    """Those that must not fall. A worker's time begins anew with the worker."""
    return {
        name: value
        for name, value in figures.items()
        if name[0].endswith(("_total", "_bucket", "_count", "_sum")) and "worker" not in name[0]
    }


class Watched:
    """Scrapes, and sees that no counter falls, whichever worker answers."""

    def __init__(self, server: Server, rights: dict[str, str]) -> None:
        self.server = server
        self.rights = rights
        self.last = scrape(server, rights)
        self.first = self.last

    def scrape(self) -> Figures:
        figures = scrape(self.server, self.rights)
        now, before = counters(figures), counters(self.last)
        assert now.keys() == before.keys()
        fallen = {name: (before[name], now[name]) for name in now if now[name] < before[name]}
        assert not fallen
        self.last = figures
        return figures

    def wait_for(self, name: tuple[str, ...], value: float) -> None:
        until(lambda: self.scrape()[name] == value, f"{name} is {value}", pause=0.1)

    def grown(self, *name: str) -> float:
        return self.last[name] - self.first[name]

    def wait_until_grown(self, *name: str, by: float) -> None:
        self.wait_for(name, self.first[name] + by)


@contextlib.contextmanager
def subscribers(
    server: Server, rights: dict[str, str], name: str, count: int
) -> Iterator[list[Stream]]:
    with contextlib.ExitStack() as held:
        yield [
            held.enter_context(open_stream(server, f"/channels/{name}", headers=rights))
            for _ in range(count)
        ]


def test_counts_are_what_clients_got(server: Server, rights: dict[str, str]) -> None:
    watched = Watched(server, rights)
    with subscribers(server, rights, "figures.a", 20) as streams:
        watched.wait_for(("sseflask_streams_open", "channel"), 20)
        publish_all(server, "figures.a", ["one", "two"], rights)
        ids = [stream.next().id for stream in streams for _ in range(2)]
    assert len(set(ids)) == 2
    counter = fetch(server, "/sse/v1?count=30&interval=0").body
    answer = fetch(server, "/sse/openai_out?user_message=Hello").body
    watched.wait_until_grown("sseflask_events_delivered_total", "channel", by=40)
    one = f"id: {ids[0]}\ndata: one\n\nid: {ids[1]}\ndata: two\n\n"
    watched.wait_until_grown("sseflask_bytes_delivered_total", "channel", by=20 * len(one))
    watched.wait_until_grown("sseflask_events_delivered_total", "stream", by=30)
    watched.wait_until_grown("sseflask_bytes_delivered_total", "stream", by=len(counter))
    watched.wait_until_grown("sseflask_events_delivered_total", "run", by=answer.count(b"data: "))
    watched.wait_until_grown("sseflask_bytes_delivered_total", "run", by=len(answer))
    watched.wait_until_grown("sseflask_runs_ended_total", "finished", by=1)
    watched.wait_until_grown("sseflask_events_published_total", by=2)
    watched.wait_until_grown("sseflask_publish_seconds_count", by=1)
    watched.wait_until_grown("sseflask_first_token_seconds_count", by=1)
    assert watched.grown("sseflask_delivery_seconds_count") >= 2
    watched.wait_until_grown("sseflask_streams_ended_total", "channel", "left", by=20)
    watched.wait_for(("sseflask_streams_open", "channel"), 0)


def test_who_comes_back_and_who_has_missed_too_much(server: Server, rights: dict[str, str]) -> None:
    watched = Watched(server, rights)
    publish_all(server, "figures.b", ["1", "2", "3"], rights)
    path = "/channels/figures.b?last_event_id=earliest"
    with open_stream(server, path, headers=rights) as stream:
        first, *_ = (stream.next().id for _ in range(3))
    with open_stream(server, f"/channels/figures.b?last_event_id={first}", headers=rights) as again:
        assert again.data(2) == ["2", "3"]
    with open_stream(server, "/channels/figures.b?last_event_id=other-1", headers=rights) as lost:
        assert lost.next().event == "gap"
    until(lambda: watched.scrape() and watched.grown("sseflask_gaps_total", "epoch") == 1, "a gap")
    until(
        lambda: watched.scrape() and watched.grown("sseflask_replays_total", "channel") == 2,
        "two came with an id",
    )
    assert watched.grown("sseflask_events_replayed_total", "channel") >= 5


def test_no_counter_falls_when_a_worker_is_killed(server: Server, rights: dict[str, str]) -> None:
    watched = Watched(server, rights)
    delivered = ("sseflask_events_delivered_total", "channel")
    with subscribers(server, rights, "figures.c", 20) as streams:
        watched.wait_for(("sseflask_streams_open", "channel"), 20)
        for _ in range(5):
            publish_all(server, "figures.c", ["x"], rights)
        for stream in streams:
            stream.data(5)
        watched.wait_until_grown(*delivered, by=100)
        # A client's worker: the kernel may have given the other one none.
        worker_of(server, streams[0].connection).kill()
        until(lambda: watched.scrape()["sseflask_streams_open", "channel"] < 20, "some are gone")
        watched.wait_for(("sseflask_workers",), 2)
    assert watched.grown(*delivered) == 100
    assert {name[-1] for name in watched.last if name[0] == "sseflask_worker_info"} == {"0", "1"}
    watched.wait_for(("sseflask_streams_open", "channel"), 0)


def test_no_counter_falls_at_a_reload(server: Server, rights: dict[str, str]) -> None:
    watched = Watched(server, rights)
    assert fetch(server, "/sse/v1?count=30&interval=0").status == 200
    old = {each.pid for each in server.workers()}
    server.send_signal(signal.SIGHUP)
    until(
        lambda: watched.scrape() and old.isdisjoint(each.pid for each in server.workers()),
        "all workers are new ones",
    )
    watched.wait_for(("sseflask_workers",), 2)
    assert watched.grown("sseflask_events_delivered_total", "stream") == 30


def test_the_figures_of_each_second_come_once(server: Server, rights: dict[str, str]) -> None:
    with subscribers(server, rights, "sseflask.live", 4) as streams:
        # Who came last has had the fewest: a second may have ended meanwhile.
        *others, last = streams
        events = [last.next() for _ in range(2)]
        for stream in others:
            seen = [next(each for each in stream if each.id == events[0].id), stream.next()]
            assert [each.id for each in seen] == [each.id for each in events]
    said = [json.loads(each.data or "") for each in events]
    moments = [each["at"] for each in said]
    assert int(moments[0]) < int(moments[1]), "of each second one"
    pids = {each.pid for each in server.workers()}
    assert {each["pid"] for each in said[-1]["workers"]} == pids
    assert sum(each["streams"]["channel"] for each in said[-1]["workers"]) == 4


def test_nobody_else_publishes_them(server: Server, rights: dict[str, str]) -> None:
    response = post(server, "sseflask.live", b"forged", "text/plain", rights)
    assert error_of(response, 403)["code"] == "reserved_channel"
