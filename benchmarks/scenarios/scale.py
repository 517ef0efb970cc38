"""Scale: CPU per delivered event and memory per subscriber while the subscribers become more."""

from __future__ import annotations

from benchmarks.memory import memory
from benchmarks.scenario import Figure, Metric, Options, Sample, Scenario
from benchmarks.server_process import Running
from benchmarks.subscribers import Subscribers, with_log

_STEPS = {"tenth": 10, "half": 2, "all": 1}
"""What part of the subscribers are there while it is measured."""

_FIRST = 100
_DELIVERIES_PER_SECOND = 20_000.0
_WARM_UP = 3
_SETTLE = 1.0


def measure(server: Running, options: Options) -> Sample:
    """Add subscribers step by step to one server; at each step compare memory and publish.

    The memory is that of the subscribers added in the step: what publishing takes is not in it.
    """
    sample = Sample()
    with Subscribers(server, options.patience) as subscribers:
        opened = min(_FIRST, options.streams)
        if not subscribers.open(opened) or not subscribers.publish_events(_WARM_UP):
            return Sample(faults=subscribers.faults() or ["an event did not reach everybody"])
        subscribers.load.run_for(_SETTLE)
        for step, divisor in _STEPS.items():
            wanted = max(options.streams // divisor, opened + 1)
            before, added, opened = memory(server), wanted - opened, wanted
            if not subscribers.open(added):
                break
            subscribers.load.run_for(_SETTLE)
            sample.values[f"kib_{step}"] = (memory(server) - before) / added
            if not subscribers.publish_events(_WARM_UP):
                break
            window = subscribers.window(options.seconds, _DELIVERIES_PER_SECOND / opened)
            sample.values[f"cpu_us_{step}"] = window.cpu_us_per_event
        sample.faults = subscribers.faults()
    if not sample.faults:
        sample.values["tenth_to_all"] = sample.values["cpu_us_tenth"] / sample.values["cpu_us_all"]
    return sample


SCENARIO = Scenario(
    name="scale",
    title="Scale: 1,000, 5,000 and 10,000 subscribers of one worker",
    route="subscribe",
    servers=("bare_c", "sseflask_service"),
    reference="bare_c",
    metrics=(
        Metric("cpu_us_all", "CPU µs/event, 10,000"),
        Metric("cpu_us_half", "5,000"),
        Metric("cpu_us_tenth", "1,000"),
        Metric("tenth_to_all", "1,000 to 10,000", ".2f"),
        Metric("kib_all", "KiB/subscriber, up to 10,000"),
        Metric("kib_half", "5,000"),
        Metric("kib_tenth", "1,000"),
    ),
    charts=(),
    options=Options(streams=10_000, seconds=1.5, patience=20),
    measure=measure,
    rounds=1,
    figures=(
        Figure(
            text="scale: CPU per delivered event to 1,000 within 25 % of that to 10,000",
            metric="tenth_to_all",
            server="sseflask_service",
            at_least=0.75,
            at_most=1.25,
        ),
    ),
    prepare=with_log,
)
