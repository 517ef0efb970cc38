"""CPU per event in a window of time in which every stream is open and warm."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from benchmarks.client.load import Load
from benchmarks.cpu import CPUMeter
from benchmarks.scenario import Options, Sample
from benchmarks.server_process import Running

WARM_UP = 0.5
_SETTLE = 0.05
_LONGEST = 10
"""How many times as long the window is at most, if the machine did not let anything run in it."""


def measure_window(
    server: Running,
    load: Load,
    options: Options,
    window: AbstractContextManager[object] | None = None,
    afterwards: Callable[[], None] = lambda: None,
) -> Sample:
    """Have the streams opened, warm up, count CPU and events for some seconds, read all to the end.

    `window` is entered and left with that time. `afterwards` is called when it is over and every
    stream still runs. What comes outside of it is checked as well.
    """
    if not load.run_until_all_began(options.patience):
        return Sample(faults=load.faults())
    load.run_for(WARM_UP)
    events, meter, began = load.events(), CPUMeter(server), time.monotonic()
    load.run_for(_SETTLE)  # nobody read while the processes were looked up
    with window or nullcontext():
        load.run_for(options.seconds)
        opened = events
        load.run(lambda: load.events() > opened or load.all_ended(), _LONGEST * options.seconds)
    events, took = load.events() - events, time.monotonic() - began
    figures = meter.per_event(max(events, 1))
    early = sum(1 for stream in load.streams if stream.ended_at)
    afterwards()
    for other in server.beside:
        other.finish()
    load.run_to_end(options.patience)
    sample = Sample(faults=load.faults())
    if early:
        sample.faults.append(f"{early} streams ended while they were measured")
    if events:
        sample.values = {**figures, "events_per_second": events / took}
    return sample
