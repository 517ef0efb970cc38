"""Viewers: what those of one run of items cost, beside as many subscribers of a channel."""

from __future__ import annotations

from benchmarks.client.load import Load
from benchmarks.item_runs import run_stream
from benchmarks.published_events import SIZE
from benchmarks.scenario import Figure, Metric, Options, Sample, Scenario
from benchmarks.server_process import Running
from benchmarks.subscribers import Subscribers, with_log
from benchmarks.window import WARM_UP, measure_window

_DELIVERIES_PER_SECOND = 20_000.0
_RATE_AT_MOST = 100.0
_OPENED_PER_SECOND = 400.0
_WARM_UP_EVENTS = 3


def measure(server: Running, options: Options) -> Sample:
    """Deliver to subscribers and to viewers of one server, the same amount of the same size."""
    sample = Sample()
    rate = min(_DELIVERIES_PER_SECOND / options.streams, _RATE_AT_MOST)
    for name, found in (
        ("channel", _to_subscribers(server, options, rate)),
        ("run", _to_viewers(server, options, rate)),
    ):
        sample.faults += [f"{name}: {fault}" for fault in found.faults]
        sample.remarks += [f"{name}: {remark}" for remark in found.remarks]
        if "cpu_us_per_event" in found.values:
            sample.values[f"cpu_us_{name}"] = found.values["cpu_us_per_event"]
    if not sample.faults:
        of = sample.values
        of["run_to_channel"] = of["cpu_us_run"] / of["cpu_us_channel"]
    return sample


def _to_subscribers(server: Running, options: Options, rate: float) -> Sample:
    with Subscribers(server, options.patience, size=SIZE) as subscribers:
        came = subscribers.open(options.streams) and subscribers.publish_events(_WARM_UP_EVENTS)
        if not came:
            return Sample(faults=subscribers.faults() or ["an event did not reach everybody"])
        window = subscribers.window(options.seconds, rate)
        return Sample(
            {"cpu_us_per_event": window.cpu_us_per_event}, subscribers.faults(), window.remarks()
        )


def _to_viewers(server: Running, options: Options, rate: float) -> Sample:
    opening = options.streams / _OPENED_PER_SECOND
    count = int(rate * (4 * opening + WARM_UP + options.seconds + 1))
    with Load(server.port) as load:
        request = server.request("stored_items", rate=rate, count=count, size=SIZE)
        starter = run_stream(request, count)
        load.add([starter])
        if not load.run(lambda: starter.began, options.patience) or not starter.check.ids:
            return Sample(faults=load.faults())
        request = server.request("view_items", run=starter.check.ids.run)
        viewers = (run_stream(request, count) for _ in range(options.streams - 1))
        load.add(viewers, _OPENED_PER_SECOND)
        return measure_window(server, load, options)


SCENARIO = Scenario(
    name="item_viewers",
    title="Viewers: 1,000 of one run of items, and 1,000 subscribers of a channel",
    route="view_items",
    servers=("sseflask_worker", "sseflask_redis_worker"),
    reference="sseflask_worker",
    metrics=(
        Metric("cpu_us_run", "run: CPU µs/event"),
        Metric("cpu_us_channel", "channel: CPU µs/event"),
        Metric("run_to_channel", "run to channel", ".2f"),
    ),
    charts=(),
    options=Options(streams=1000, seconds=3, patience=20),
    measure=measure,
    rounds=5,
    figures=(
        Figure(
            text="viewers: 1,000 of a run of items, at most 1.1 x the CPU per event of 1,000 "
            "subscribers",
            metric="run_to_channel",
            server="sseflask_worker",
            at_most=1.1,
        ),
        Figure(
            text="viewers on Redis: 1,000 of a run of items, at most 1.1 x the CPU per event of "
            "1,000 subscribers",
            metric="run_to_channel",
            server="sseflask_redis_worker",
            at_most=1.1,
        ),
    ),
    prepare=with_log,
)
