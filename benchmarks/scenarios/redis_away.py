"""Redis away: its server is killed, or stands still, while events are published and delivered."""

from __future__ import annotations

import time
from collections.abc import Callable

from benchmarks.client.http import post
from benchmarks.client.load import Load, Stream
from benchmarks.client.order import OrderCheck
from benchmarks.client.requester import Asker, NoAnswer
from benchmarks.due import Due
from benchmarks.open_streams import faults, open_all
from benchmarks.percentile import percentile
from benchmarks.published_events import Deliveries, event
from benchmarks.scenario import Figure, Metric, Options, Sample, Scenario
from benchmarks.server_process import Running
from benchmarks.subscribers import CHANNEL, with_log

_RATE = 50.0
_BEFORE = 1.0
_SETTLE = 0.3
_AGAIN = 0.1
"""Seconds after which an event that was refused is sent again."""

_UNAVAILABLE = 503


class PatientPublisher:
    """Publishes at a rate; sends again, with its key, what was refused or not answered.

    One event after the other, and a later one only when the one before is stored: so subscribers
    get them in order, whatever happens between. Those that were due meanwhile follow at once.
    """

    def __init__(self, server: Running, asker: Asker) -> None:
        self._server = server
        self._asker = asker
        self.due = Due(_RATE)
        self._not_before = 0.0
        self._asked_at = 0.0
        self._request = b""
        self.stored = 0
        self.refused_ms: list[float] = []
        self.faults: list[str] = []

    def finish(self) -> None:
        """Publish no more; what is due is still published."""
        self.due.finish()

    @property
    def settled(self) -> bool:
        """Whether everything that was due is stored."""
        return bool(self.faults) or not self.due.times

    def step(self) -> None:
        """Take an answer, or publish what is due."""
        now = time.monotonic()
        if not self.due.look(now) or self.faults:
            return
        try:
            if self._asker.waiting:
                self._take(self._asker.answer(), now)
            elif now >= self._not_before:
                self._ask(now)
        except NoAnswer:
            # Stored or not: the key tells.
            self._asker.close()
            self._not_before = now + _AGAIN

    def _ask(self, now: float) -> None:
        if not self._request:
            path = self._server.stack.path("publish", channel=CHANNEL)
            number = self.stored
            self._request = post(path, self._server.port, event(number), key=f"event-{number}")
        self._asked_at = now
        self._asker.ask(self._request)

    def _take(self, status: int | None, now: float) -> None:
        if status is None:
            return
        if 200 <= status < 300:
            self.stored += 1
            self.due.times.popleft()
            self._request = b""
        elif status == _UNAVAILABLE:
            self.refused_ms.append((now - self._asked_at) * 1e3)
            self._not_before = now + _AGAIN
        else:
            self.faults.append(f"event {self.stored} refused: status {status}")


def measure(server: Running, options: Options) -> Sample:
    """Kill the Redis server and start it again, then let it stand still, with all running on."""
    redis = server.redis
    if redis is None:
        return Sample(faults=["has no Redis server"])
    deliveries = Deliveries()
    with Asker(server.port) as asker:
        publisher = PatientPublisher(server, asker)
        with Load(server.port, (publisher,)) as load:
            request = server.request("subscribe", channel=CHANNEL)

            def subscriber() -> Stream:
                return Stream(request, OrderCheck(0, deliveries.number))

            if not open_all(load, subscriber, options.streams, options.patience):
                return Sample(faults=faults(load))
            load.run_for(_SETTLE)
            publisher.due.go()
            load.run_for(_BEFORE)
            sample = Sample()
            for name, away, back in (
                ("killed", redis.kill, redis.start),
                ("frozen", redis.freeze, redis.thaw),
            ):
                away()
                load.run_for(options.seconds)
                took = _return(load, publisher, deliveries, back, options)
                if took is None:
                    sample.faults.append(f"{name}: nothing was delivered after it")
                    break
                sample.values[f"{name}_seconds"] = took
                load.run_for(_BEFORE)
            publisher.finish()
            if not load.run(lambda: publisher.settled, options.patience):
                sample.faults.append("not everything that was due could be published in time")
            _all_received(load, publisher, deliveries, options.patience)
            for stream in load.streams:
                stream.check.expect(publisher.stored)
            checks = [stream.check for stream in load.streams]
            sample.values["lost"] = sum(check.missing + check.lacking() for check in checks)
            sample.values["doubled"] = sum(check.behind for check in checks)
            sample.faults += publisher.faults + faults(load, "not every event came in time")
    if publisher.refused_ms:
        ordered = sorted(publisher.refused_ms)
        sample.values["refused_p50_ms"] = percentile(ordered, 50)
        sample.values["refused_most_ms"] = ordered[-1]
    return sample


def _return(
    load: Load,
    publisher: PatientPublisher,
    deliveries: Deliveries,
    back: Callable[[], None],
    options: Options,
) -> float | None:
    """Have Redis back; give the seconds until everybody has the next event, None: nobody has."""
    back()
    began, stored = time.monotonic(), publisher.stored
    wanted = (stored + 1) * len(load.streams)
    came = load.run(lambda: deliveries.received >= wanted, options.patience)
    return time.monotonic() - began if came else None


def _all_received(
    load: Load, publisher: PatientPublisher, deliveries: Deliveries, patience: float
) -> None:
    wanted = publisher.stored * len(load.streams)
    load.run(lambda: deliveries.received >= wanted, patience)
    load.run_for(_SETTLE)  # for what comes twice


SCENARIO = Scenario(
    name="redis_away",
    title="Redis away: killed and started again, then standing still, 50 events/s all the while",
    route="publish",
    servers=("sseflask_redis_stored",),
    reference="sseflask_redis_stored",
    metrics=(
        Metric("killed_seconds", "killed: s from its return to the next event", ".2f"),
        Metric("frozen_seconds", "frozen: s", ".2f"),
        Metric("lost", "lost", ",.0f"),
        Metric("doubled", "doubled", ",.0f"),
        Metric("refused_p50_ms", "publisher refused: p50 ms"),
        Metric("refused_most_ms", "most ms", ",.0f"),
    ),
    charts=(),
    options=Options(streams=1000, seconds=10, patience=60),
    measure=measure,
    rounds=1,
    figures=(
        *(
            Figure(
                text=f"Redis {how} for 10 s: delivery to 1,000 goes on within 2 s of its return",
                metric=f"{name}_seconds",
                server="sseflask_redis_stored",
                at_most=2,
            )
            for name, how in (("killed", "killed"), ("frozen", "standing still"))
        ),
        *(
            Figure(
                text=f"Redis away for 10 s, twice: no event {metric}",
                metric=metric,
                server="sseflask_redis_stored",
                at_most=0,
            )
            for metric in ("lost", "doubled")
        ),
    ),
    prepare=with_log,
)
