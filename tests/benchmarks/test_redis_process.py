"""The Redis server of a stack: what is stored there, its CPU and memory, and its being away."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from benchmarks import scenarios
from benchmarks.client.http import post
from benchmarks.client.requester import Asker
from benchmarks.cpu import CPUMeter
from benchmarks.published_events import LOG_VARIABLE, RUN_LOG_VARIABLE, event
from benchmarks.redis_process import EACH_WRITE_STORED, NOT_STORED, on_redis, redis_server
from benchmarks.scenario import Options
from benchmarks.scenarios import followers, redis_away, redis_memory
from benchmarks.server_process import Running, free_port
from benchmarks.upstream import Upstream
from tests.benchmarks.conftest import PATIENCE, cores

AWAY = Options(streams=5, seconds=0.5, patience=PATIENCE)


def test_its_cpu_time_goes_on_after_it_was_killed() -> None:
    with redis_server(free_port(), cores().redis, NOT_STORED) as redis:
        while redis.cpu() < 0.02:
            redis.stored_bytes()
        before = redis.cpu()
        redis.kill()
        killed = redis.cpu()
        redis.start()
        assert before <= killed <= redis.cpu()


@pytest.mark.parametrize(("options", "kept"), [(NOT_STORED, False), (EACH_WRITE_STORED, True)])
def test_what_is_left_after_it_was_killed(options: tuple[str, ...], kept: bool) -> None:
    with redis_server(free_port(), cores().redis, options) as redis:
        with redis._client() as client:
            client.set("here", "1")
        redis.kill()
        redis.start()
        with redis._client() as client:
            assert client.exists("here") == kept


def test_what_stands_still_answers_when_it_goes_on() -> None:
    with redis_server(free_port(), cores().redis, NOT_STORED) as redis:
        redis.freeze()
        began = time.monotonic()
        redis.thaw()
        assert redis.tail_bytes() == 0
        assert time.monotonic() - began < PATIENCE


def test_a_stack_on_it_has_no_files() -> None:
    files = {LOG_VARIABLE: "a", RUN_LOG_VARIABLE: "b", "OTHER": "c"}
    with redis_server(free_port(), cores().redis, NOT_STORED) as redis:
        assert on_redis(files, redis) == {"OTHER": "c", **redis.environment}


@pytest.mark.parametrize("server", ["sseflask_redis", "sseflask_service"], indirect=True)
def test_its_cpu_is_counted_apart(server: Running) -> None:
    path = server.stack.path("publish", channel="apart")
    meter = CPUMeter(server)
    with Asker(server.port) as asker:
        for number in range(50):
            assert asker.ask_and_wait(post(path, server.port, event(number))) == 201
    figures = meter.per_event(50)
    assert figures.pop("cpu_us_per_event") > 0
    assert list(figures) == (["redis_us_per_event"] if server.redis else [])
    assert all(value > 0 for value in figures.values())


@pytest.mark.parametrize("server", ["sseflask_redis_stored"], indirect=True)
def test_nothing_is_lost_while_it_is_away(server: Running) -> None:
    sample = redis_away.measure(server, AWAY)
    assert sample.faults == []
    assert set(sample.values) == {metric.key for metric in redis_away.SCENARIO.metrics}
    assert sample.values["lost"] == sample.values["doubled"] == 0


@pytest.mark.parametrize("server", ["sseflask_redis_worker"], indirect=True)
def test_a_server_that_forgets_everything_is_found_out(server: Running) -> None:
    # The streams end, so that clients come back and are told a gap.
    sample = redis_away.measure(server, replace(AWAY, patience=10))
    assert sample.values.get("lost"), sample
    assert any("ended" in fault for fault in sample.faults), sample


@pytest.mark.parametrize("server", ["sseflask_redis"], indirect=True)
def test_what_is_stored_takes_memory(
    server: Running, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("_EVENTS", 5000), ("_TOGETHER", 500), ("_CHANNELS", 20), ("_CHUNKS", 20)):
        monkeypatch.setattr(redis_memory, name, value)
    sample = redis_memory.measure(
        replace(server, beside=[upstream]), Options(streams=40, seconds=0, patience=PATIENCE)
    )
    assert sample.faults == []
    assert sample.values["event_bytes"] > 300
    assert sample.values["run_bytes"] > 20 * 200


@pytest.mark.parametrize("server", followers.SCENARIO.servers, indirect=True)
def test_what_follows_costs_the_other_machine_something(server: Running) -> None:
    sample = followers.measure(server, Options(streams=1, seconds=0.5))
    assert sample.faults == []
    two = "publish_across" in server.stack.routes
    assert ("follower_us_per_event" in sample.values) == two
    assert all(value > 0 for value in sample.values.values())


@pytest.mark.parametrize("name", ["followers", "redis_away", "redis_memory"])
def test_a_server_without_one_has_no_figures(name: str) -> None:
    running = Running(None, 0, None, {}, None)  # type: ignore[arg-type]
    assert scenarios.load(name).measure(running, AWAY).faults == ["has no Redis server"]
