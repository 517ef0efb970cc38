"""The figures of a second: which worker publishes them, and what they say."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from sseflask.channels import channels as module
from sseflask.channels.channels import Channels
from sseflask.counters import stats
from sseflask.counters.counts import Counts, Gauges
from sseflask.counters.stats import Snapshot, Usage, Worker
from sseflask.counters.table import Slot
from sseflask.metrics import live
from sseflask.metrics.live import LiveFigures, Moment, figures, is_publisher
from sseflask.store.names import Pattern
from tests import redis_server
from tests.live.kit.waiting import until
from tests.unit.channels.test_channels import make, read


def worker(
    number: int,
    *,
    pid: int = 0,
    seen: float = 100.0,
    events: int = 0,
    cpu: float = 0.0,
    **gauges: int,
) -> Worker:
    counts = Counts()
    counts.streams["stream"].events = events
    counts.streams["run"].events = events
    counts.streams["channel"].bytes = 10 * events
    usage = Usage(cpu, 1000 + number)
    return Worker(number, pid or 50 + number, seen, Gauges()._replace(**gauges), counts, usage)


def moment(at: float, *workers: Worker, published: int = 0) -> Moment:
    counts = Counts()
    counts.published = published
    return Moment(at, 1000.5 + at, Snapshot(counts, workers, True))


def test_what_is_said_of_a_second() -> None:
    before = moment(100.0, worker(0, events=5, cpu=1.0), worker(1, events=3), published=7)
    first = worker(0, events=105, cpu=1.5, open_channels=4)
    second = worker(1, pid=99, events=3, cpu=0.2)
    after = moment(102.0, first, second, published=10)
    said = figures(before, after)
    assert said == {
        "at": 1102.5,
        "published": 3,
        "workers": [
            {
                "pid": 50,
                "cpu": 0.25,
                "memory": 1000,
                "streams": {"stream": 0, "channel": 4, "run": 0},
                "events": 100.0,
                "bytes": 500.0,
            },
            {
                "pid": 99,
                "cpu": 0.1,
                "memory": 1001,
                "streams": {"stream": 0, "channel": 0, "run": 0},
                "events": 0.0,
                "bytes": 0.0,
            },
        ],
    }


def test_one_that_has_come_since() -> None:
    said = figures(moment(100.0), moment(101.0, worker(3, events=50, cpu=0.5)))
    (only,) = said["workers"]
    assert (only["events"], only["cpu"]) == (0, 0.5), "what was before is not of this second"


def slot(number: int, *, pid: int = 50, age: float = 0.0, **gauges: int) -> Slot:
    return Slot(number, pid, time.monotonic() - age, [*Gauges()._replace(**gauges)], [])


@pytest.mark.parametrize("bad", [{"leaving": 1}, {"age": 4.0}, {"pid": 0}, None])
def test_the_first_that_is_well_publishes(bad: dict[str, int] | None) -> None:
    slots = [slot(2, **(bad or {})), slot(5)]
    first = 2 if bad is None else 5
    assert [number for number in (2, 5) if is_publisher(slots, number)] == [first]


def test_a_process_on_its_own_publishes() -> None:
    assert is_publisher([], None)


@pytest.fixture
def channels(monkeypatch: pytest.MonkeyPatch) -> Iterator[Channels]:
    monkeypatch.setattr(live, "_DELAY", 0.0)
    made = make(":memory:")
    yield made
    made.close()


def subscribed(channels: Channels, name: str) -> Any:
    subscription = channels.subscribe([Pattern.parse(name)], None)
    assert subscription.get(0.0) is None  # it is there from here on
    return subscription


def look(live_figures: LiveFigures) -> None:
    live_figures.look()
    until(lambda: not live_figures._publishing, "it has published")


def test_figures_are_published_while_somebody_reads_them(channels: Channels) -> None:
    live_figures = LiveFigures(channels)
    reader = subscribed(channels, "sseflask.live")
    look(live_figures)
    look(live_figures)
    (event,) = read(reader, 1)
    assert event.event == "figures"
    said = json.loads(event.data)
    assert [each["pid"] for each in said["workers"]] == [os.getpid()]
    look(live_figures)
    assert json.loads(read(reader, 1)[0].data)["published"] == 0, "its own events are not counted"
    reader.abandon()
    look(live_figures)
    last = channels.subscribe([Pattern.parse("sseflask.live")], "earliest")
    assert [each.event for each in read(last, 2)] == ["figures"] * 2
    assert last.get(0.0) is None, "nothing has been published since"


def test_machines_publish_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    place = redis_server.place()
    with contextlib.closing(make(place)) as here, contextlib.closing(make(place)) as there:
        monkeypatch.setattr(live, "_DELAY", 0.0)
        # Both are in this process.
        monkeypatch.setattr(live, "_read_here", lambda _slots: False)
        live_figures = LiveFigures(here)
        look(live_figures)
        reader = subscribed(there, "sseflask.live")
        assert there.store.position().number == 0, "nobody has read them until now"
        monkeypatch.setattr(live, "_ASK_SECONDS", 0.0)
        live_figures._ask_at = 0.0
        look(live_figures)
        look(live_figures)
        said = json.loads(read(reader, 1)[0].data)
        assert said["machine"]
        assert [each["pid"] for each in said["workers"]] == [os.getpid()]
        reader.abandon()
        live_figures._read_until = 0.0
        before = there.store.position()
        look(live_figures)
        assert there.store.position() == before


def test_nothing_is_done_while_nobody_reads_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One worker of a machine asks the others, and not every second."""
    place = redis_server.place()
    with contextlib.closing(make(place)) as channels:
        monkeypatch.setattr(live, "_DELAY", 0.0)
        snapshots = mock.Mock(wraps=stats.snapshot)
        monkeypatch.setattr(live, "snapshot", snapshots)
        asked = mock.Mock(wraps=channels.store.count_subscriptions)
        monkeypatch.setattr(channels.store, "count_subscriptions", asked)
        first, other = LiveFigures(channels), LiveFigures(channels)
        for _ in range(3):
            look(first)
        monkeypatch.setattr(live, "is_publisher", lambda _slots, _own: False)
        for _ in range(3):
            look(other)
        assert asked.call_count == 1
        assert not snapshots.called


def test_those_who_read_everything_do_not_have_them_published(channels: Channels) -> None:
    everything = subscribed(channels, "**")
    live_figures = LiveFigures(channels)
    for _ in range(3):
        look(live_figures)
    assert everything.get(0.0) is None


def test_few_are_kept_and_others_are_not_forgotten_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log.sqlite"
    monkeypatch.setattr(module, "_YOUNG_SECONDS", 0.0)
    channels = make(path, keep=1000)
    try:
        channels.publish("x", [b"data: 1\n\n"])
        for _ in range(200):
            channels.publish("sseflask.live", [b"data: 1\n\n"])
    finally:
        channels.close()
    with contextlib.closing(sqlite3.connect(path)) as database:
        kept = dict(database.execute("SELECT name, kept FROM channels").fetchall())
    assert kept["x"] == 1
    assert 60 <= kept["sseflask.live"] <= 72
