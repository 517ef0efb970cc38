"""Responsive: how soon a worker answers others while it delivers to 10,000 subscribers."""

from __future__ import annotations

import contextlib
import time

from benchmarks.client.requester import Asker, NoAnswer
from benchmarks.percentile import percentile
from benchmarks.scenario import Figure, Metric, Options, Sample, Scenario
from benchmarks.server_process import Running
from benchmarks.subscribers import Subscribers, with_log

_ASKED_PER_SECOND = 100.0
"""So many that a hundredth of the answers is more than one of them."""

_AHEAD = 4
"""Events under way: the server has the next ones before the last subscriber has read this one."""

_AT_ONCE = 32
"""Streams read at a time: more would be the client's own delay in what is measured."""

_WARM_UP = 3


class Probe:
    """Asks whether the server is alive, at a steady rate, and times the answers while `timing`."""

    def __init__(self, server: Running, asker: Asker) -> None:
        self._asker = asker
        self._request = server.request("health")
        self._due = time.monotonic()
        self._asked_at = 0.0
        self.timing = False
        self.found: list[float] = []
        self.faults: list[str] = []

    def step(self) -> None:
        """Ask when it is time to, and take the answer when it is there."""
        now = time.monotonic()
        if self.faults:
            return
        try:
            if self._asker.waiting:
                self._take(now)
            elif now >= self._due:
                # What could not be asked in its time, because an answer was late, is left out.
                self._due = max(self._due + 1 / _ASKED_PER_SECOND, now)
                self._asked_at = now
                self._asker.ask(self._request)
        except NoAnswer as error:
            self.faults.append(f"no answer to a request beside: {error}")

    def _take(self, now: float) -> None:
        status = self._asker.answer()
        if status is None:
            return
        if status != 200:
            self.faults.append(f"status {status} to a request beside")
        elif self.timing:
            self.found.append((now - self._asked_at) * 1e3)

    def finish(self) -> None:
        """Nothing has to come to an end."""


def measure(server: Running, options: Options) -> Sample:
    """Publish to everybody without a pause and ask for something small meanwhile."""
    with contextlib.ExitStack() as opened:
        probe = Probe(server, opened.enter_context(Asker(server.port)))
        subscribers = opened.enter_context(
            Subscribers(server, options.patience, beside=(probe,), at_once=_AT_ONCE)
        )
        if not subscribers.open(options.streams) or not subscribers.publish_events(_WARM_UP):
            return Sample(faults=subscribers.faults() or ["an event did not reach everybody"])
        probe.timing = True
        began = time.monotonic()
        window = subscribers.window(options.seconds, float("inf"), _AHEAD)
        took = time.monotonic() - began
        sample = Sample(faults=subscribers.faults() + probe.faults)
    ordered = sorted(probe.found)
    if not ordered:
        sample.faults.append("nothing was answered")
        return sample
    sample.values = {
        "p99_ms": percentile(ordered, 99),
        "p50_ms": percentile(ordered, 50),
        "most_ms": ordered[-1],
        "busy_percent": window.cpu / took * 100,
        "events_per_second": window.deliveries / took,
    }
    return sample


SCENARIO = Scenario(
    name="responsive",
    title="Responsive: a small request while a worker delivers to 10,000 without a pause",
    route="health",
    servers=("sseflask_service", "starlette_uvicorn"),
    reference="starlette_uvicorn",
    metrics=(
        Metric("p99_ms", "p99 ms"),
        Metric("p50_ms", "p50 ms"),
        Metric("most_ms", "most ms"),
        Metric("busy_percent", "% of a core", ".0f"),
        Metric("events_per_second", "events/s", ".2f", wall=True, more_is_better=True),
    ),
    charts=("p99_ms",),
    options=Options(streams=10_000, seconds=4, patience=20),
    measure=measure,
    rounds=1,
    figures=(
        Figure(
            text="responsive: /healthz within 20 ms, p99, while a worker delivers to 10,000",
            metric="p99_ms",
            server="sseflask_service",
            at_most=20,
        ),
    ),
    prepare=with_log,
)
