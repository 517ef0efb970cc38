"""Memory of the Redis server for what is stored: an event, a channel, a run of 200 chunks."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from dataclasses import replace

from benchmarks.client.http import post
from benchmarks.client.load import Load, Stream
from benchmarks.client.requester import Asker, NoAnswer
from benchmarks.published_events import event
from benchmarks.redis_process import RedisProcess
from benchmarks.scenario import Metric, Options, Prepared, Sample, Scenario
from benchmarks.scenarios import relay
from benchmarks.server_process import Running
from benchmarks.upstream import AROUND, Upstream

_SIZE = 400
_EVENTS = 20_000
_TOGETHER = 500
_CHANNELS = 2_000
_CHUNKS = 200
_WARM_UP = 5


def measure(server: Running, options: Options) -> Sample:
    """Store events in one channel, then one in each of many, then runs; compare the memory."""
    redis = server.redis
    if redis is None:
        return Sample(faults=["has no Redis server"])
    try:
        with Asker(server.port) as asker:
            _publish(server, asker, "warm", _TOGETHER)
            event_bytes = _events(server, asker, redis)
            channel_bytes = _channels(server, asker, redis)
    except NoAnswer as error:
        return Sample(faults=[f"not published: {error}"])
    # What the first runs need is not that of a run.
    faults = _run(server, _WARM_UP, options)
    before = redis.stored_bytes()
    faults += _run(server, options.streams, options)
    run_bytes = (redis.stored_bytes() - before) / options.streams
    return Sample(
        {
            "event_bytes": event_bytes,
            "channel_bytes": channel_bytes - event_bytes,
            "run_bytes": run_bytes,
            "chunk_bytes": run_bytes / (_CHUNKS + AROUND),
            "tail_mib": redis.tail_bytes() / (1 << 20),
        },
        faults,
    )


def _events(server: Running, asker: Asker, redis: RedisProcess) -> float:
    """Give the bytes that one more event of a channel takes."""
    before = redis.stored_bytes()
    for _ in range(_EVENTS // _TOGETHER):
        _publish(server, asker, "many", _TOGETHER)
    return (redis.stored_bytes() - before) / _EVENTS


def _channels(server: Running, asker: Asker, redis: RedisProcess) -> float:
    """Give the bytes that one more channel takes, with one event in it."""
    before = redis.stored_bytes()
    for number in range(_CHANNELS):
        _publish(server, asker, f"users.{number}", 1)
    return (redis.stored_bytes() - before) / _CHANNELS


def _publish(server: Running, asker: Asker, channel: str, amount: int) -> None:
    body = json.dumps([{"data": event(number, _SIZE).decode()} for number in range(amount)])
    path = server.stack.path("publish_array", channel=channel)
    status = asker.ask_and_wait(post(path, server.port, body.encode(), "application/json"))
    if status != 201:
        raise NoAnswer(f"status {status}")


def _run(server: Running, amount: int, options: Options) -> list[str]:
    """Have so many runs stored from beginning to end; say what was wrong."""
    (upstream,) = server.beside
    assert isinstance(upstream, Upstream)
    upstream.length = _CHUNKS
    delays = relay.Delays(upstream)
    with Load(server.port, server.beside) as load:
        load.add(
            (
                Stream(server.request("relay"), delays.check(relay.run_ids(server)))
                for _ in range(amount)
            ),
            math.inf,
        )
        load.run_to_end(options.patience)
        return load.faults()


@contextlib.contextmanager
def prepare(options: Options) -> Iterator[Prepared]:
    """Have an upstream, and channels that keep all of these events."""
    with relay.upstream(options) as prepared:
        environment = {**prepared.environment, "SSEFLASK_HISTORY_EVENTS": str(2 * _EVENTS)}
        yield replace(prepared, environment=environment)


SCENARIO = Scenario(
    name="redis_memory",
    title="Memory of the Redis server: events of 400 bytes, runs of 200 chunks",
    route="run",
    servers=("sseflask_redis",),
    reference="sseflask_redis",
    metrics=(
        Metric("event_bytes", "bytes/event of 400", ",.0f"),
        Metric("channel_bytes", "bytes/channel", ",.0f"),
        Metric("run_bytes", "bytes/run", ",.0f"),
        Metric("chunk_bytes", "bytes/chunk", ",.0f"),
        Metric("tail_mib", "MiB tail", ".1f"),
    ),
    charts=(),
    options=Options(streams=50, seconds=0, patience=20),
    measure=measure,
    rounds=1,
    prepare=prepare,
)
