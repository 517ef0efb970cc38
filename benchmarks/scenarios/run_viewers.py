"""Viewers: what those of one run cost, beside as many subscribers of a channel."""

from __future__ import annotations

import contextlib

from benchmarks.scenario import Figure, Metric, Options, Prepared, Sample, Scenario
from benchmarks.scenarios import relay
from benchmarks.server_process import Running
from benchmarks.subscribers import Subscribers, Window
from benchmarks.upstream import DATA_SIZE, Upstream
from benchmarks.viewers import Viewers

_DELIVERIES_PER_SECOND = 20_000.0
_RATE_AT_MOST = 100.0
_WARM_UP = 3
_SETTLE = 0.5


def measure(server: Running, options: Options) -> Sample:
    """Deliver to viewers and to subscribers of one server, the same amount of the same size."""
    sample = Sample()
    for name, deliver in (("channel", _to_subscribers), ("run", _to_viewers)):
        window, faults = deliver(server, options)
        sample.faults += [f"{name}: {fault}" for fault in faults]
        if window is None or faults:
            return sample
        sample.values[f"cpu_us_{name}"] = window.cpu_us_per_event
        times = window.times()
        sample.values |= {f"{name}_{key}": times[key] for key in ("delivery_p50_ms", "last_ms")}
        sample.remarks += [f"{name}: {remark}" for remark in window.remarks()]
    sample.values["run_to_channel"] = sample.values["cpu_us_run"] / sample.values["cpu_us_channel"]
    return sample


def _to_subscribers(server: Running, options: Options) -> tuple[Window | None, list[str]]:
    with Subscribers(server, options.patience, size=DATA_SIZE) as subscribers:
        if not subscribers.open(options.streams) or not subscribers.publish_events(_WARM_UP):
            return None, subscribers.faults() or ["an event did not reach everybody"]
        window = subscribers.window(options.seconds, rate(options))
        return window, subscribers.faults()


def _to_viewers(server: Running, options: Options) -> tuple[Window | None, list[str]]:
    (upstream,) = server.beside
    assert isinstance(upstream, Upstream)
    with Viewers(server, upstream, rate(options), options.patience) as viewers:
        if not viewers.open(options.streams):
            return None, viewers.end() or ["a chunk did not reach everybody"]
        viewers.load.run_for(_SETTLE)
        window = viewers.window(options.seconds)
        return window, viewers.end()


def rate(options: Options) -> float:
    """Give how many events a second are delivered to all."""
    return min(_DELIVERIES_PER_SECOND / options.streams, _RATE_AT_MOST)


def prepare(options: Options) -> contextlib.AbstractContextManager[Prepared]:
    """Have an upstream of that rate, and files for the server's logs."""
    return relay.upstream(options, rate(options))


SCENARIO = Scenario(
    name="run_viewers",
    title="Viewers: 1,000 of one run, and 1,000 subscribers of a channel",
    route="run",
    servers=("sseflask_service", "sseflask_redis"),
    reference="sseflask_service",
    metrics=(
        Metric("cpu_us_run", "run: CPU µs/event"),
        Metric("cpu_us_channel", "channel: CPU µs/event"),
        Metric("run_to_channel", "run to channel", ".2f"),
        Metric("run_delivery_p50_ms", "run: p50 ms", ".2f"),
        Metric("channel_delivery_p50_ms", "channel: p50 ms", ".2f"),
        Metric("run_last_ms", "run: ms until the last has it", ".2f"),
        Metric("channel_last_ms", "channel: ms until the last has it", ".2f"),
    ),
    charts=(),
    options=Options(streams=1000, seconds=3, patience=20),
    measure=measure,
    rounds=5,
    figures=(
        Figure(
            text="viewers: 1,000 of a run, at most 1.25 x the CPU per event of 1,000 subscribers",
            metric="run_to_channel",
            server="sseflask_service",
            at_most=1.25,
        ),
        Figure(
            text="viewers on Redis: 1,000 of a run, at most 1.25 x the CPU per event of 1,000 "
            "subscribers",
            metric="run_to_channel",
            server="sseflask_redis",
            at_most=1.25,
        ),
    ),
    prepare=prepare,
)
