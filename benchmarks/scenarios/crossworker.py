"""Across workers: how soon what one worker is given reaches the subscribers of the other."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain

from benchmarks.client.http import post
from benchmarks.client.requester import Asker
from benchmarks.percentile import percentile
from benchmarks.published_events import event
from benchmarks.scenario import Figure, Metric, Options, Sample, Scenario
from benchmarks.server_process import Running
from benchmarks.subscribers import Subscribers, with_log
from benchmarks.workers import holders

_RATE = 50.0
_WORKERS = 2
_WARM_UP = 20
_TRIES = 200


@dataclass
class Found:
    """Deliveries: the nanoseconds of each by the event's number, from its own worker or across."""

    sample: Sample
    own: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    across: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(list))


def measure(server: Running, options: Options) -> Sample:
    """Publish through both workers in turn; time the subscribers that are not the publisher's.

    Which worker has a connection is what the kernel says. All of the server runs on one core: the
    time has the other worker's turn on it, where both have something to do, in it.
    """
    found = time_deliveries(server, options)
    sample = found.sample
    there, here = (sorted(chain(*each.values())) for each in (found.across, found.own))
    for name, delays in (("other", there), ("own", here)):
        if delays:
            sample.values[f"{name}_p99_ms"] = percentile(delays, 99) / 1e6
            sample.values[f"{name}_p50_ms"] = percentile(delays, 50) / 1e6
    if there or here:
        sample.values["other_share"] = len(there) / (len(there) + len(here)) * 100
    return sample


def time_deliveries(server: Running, options: Options) -> Found:
    """Publish through both workers in turn, and time each delivery."""
    with contextlib.ExitStack() as opened:
        askers = opened.enter_context(one_for_each_worker(server))
        if len(askers) < _WORKERS:
            return Found(Sample(faults=[f"{_TRIES} connections in a row came to one worker"]))
        subscribers = opened.enter_context(
            Subscribers(server, options.patience, askers=list(askers.values()))
        )
        # Each is timed for itself.
        came = all(subscribers.open(1) for _ in range(options.streams))
        if not came or not subscribers.publish_events(_WARM_UP):
            faults = subscribers.faults() or ["an event did not reach everybody"]
            return Found(Sample(faults=faults))
        window = subscribers.window(options.seconds, _RATE)
        found = Found(Sample(faults=subscribers.faults(), remarks=window.remarks()))
        holder = holders(server)
        publishing = [holder.get(asker.local_port) for asker in askers.values()]
        if publishing != list(askers):
            found.sample.faults.append("a publisher's connection did not last")
        for stream, deliveries in zip(
            subscribers.load.streams, subscribers.deliveries, strict=True
        ):
            own = holder.get(stream.local_port)
            for number, delays in deliveries.delays.items():
                is_own = own == publishing[number % _WORKERS]
                (found.own if is_own else found.across)[number].extend(delays)
    return found


@contextlib.contextmanager
def one_for_each_worker(server: Running) -> Iterator[dict[int, Asker]]:
    """Open connections until each worker has one; gives them by the worker's process."""
    path = server.stack.path("publish", channel="nobody")
    found: dict[int, Asker] = {}
    with contextlib.ExitStack() as opened:
        for _ in range(_TRIES):
            # Those of a worker that has one stay open too, so that the other one's turn comes.
            asker = opened.enter_context(Asker(server.port))
            # A connection without a request may not have been accepted yet.
            asker.ask_and_wait(post(path, server.port, event(0)))
            worker = holders(server)[asker.local_port]
            found.setdefault(worker, asker)
            if len(found) == _WORKERS:
                break
        yield found


SCENARIO = Scenario(
    name="crossworker",
    title="Across workers: from publishing on one to a subscriber of the other",
    route="publish_across",
    reference="nchan_workers",
    metrics=(
        Metric("other_p99_ms", "p99 ms", ".2f"),
        Metric("other_p50_ms", "p50 ms", ".2f"),
        Metric("own_p99_ms", "the same worker: p99 ms", ".2f"),
        Metric("own_p50_ms", "p50 ms", ".2f"),
        Metric("other_share", "% across", ".0f"),
    ),
    charts=("other_p99_ms",),
    options=Options(streams=100, seconds=3),
    measure=measure,
    rounds=5,
    figures=(
        Figure(
            text="across workers: publish to delivery, 100 subscribers, p99 at most 2 x that "
            "of nchan (goal 1.5)",
            metric="other_p99_ms",
            server="sseflask_workers",
            reference="nchan_workers",
            at_most=2,
        ),
        Figure(
            text="across workers: publish to delivery, 100 subscribers, p99 below 5 ms",
            metric="other_p99_ms",
            server="sseflask_workers",
            at_most=5,
        ),
        Figure(
            text="across machines on one Redis: publish to delivery, 100 subscribers, p99 below "
            "5 ms",
            metric="other_p99_ms",
            server="sseflask_redis_machines",
            at_most=5,
        ),
    ),
    prepare=with_log,
)
