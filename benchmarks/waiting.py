"""What one generator that waits costs, as a greenlet and as an asyncio task; no server, no sockets.

python -m benchmarks.waiting            prints a Markdown table
python -m benchmarks.waiting --json     prints the same as JSON

Of each kind 10,000 are made in a process of their own, and each sleeps again and again. Memory
is the growth of the process's resident set, divided: stacks or frames, timers, what the loop keeps.
CPU is that of one wake-up, one item and the next sleep. "Deep" are those whose item passes through
ten functions on its way, as it does under frameworks and middleware.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

_AMOUNT = 10_000
_PERIOD = 0.5
_SECONDS = 3.0
_DEEP = 10


class _Meter:
    """Counts wake-ups, and takes the figures of one kind's waiters."""

    def __init__(self) -> None:
        self.wakeups = 0
        self._resident = _resident()
        self._before = (0, 0.0)
        self.figures: dict[str, float] = {}

    def all_wait(self) -> None:
        """Take the memory; from here on wake-ups are measured."""
        self.figures["bytes"] = (_resident() - self._resident) / _AMOUNT
        self._before = (self.wakeups, time.process_time())

    def end(self) -> None:
        """Take the CPU of a wake-up."""
        wakeups, cpu = self._before
        spent = time.process_time() - cpu
        self.figures["cpu_us_per_wakeup"] = spent / (self.wakeups - wakeups) * 1e6


def _resident() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise LookupError("no VmRSS in /proc/self/status")


def _greenlets(depth: int) -> dict[str, float]:
    import gevent

    gevent.sleep(0)  # the hub is not counted
    meter = _Meter()

    def events() -> Iterator[str]:
        while True:
            gevent.sleep(_PERIOD)
            meter.wakeups += 1
            yield f"data: {meter.wakeups}\n\n"

    def consume(through: int) -> None:
        if through:
            consume(through - 1)
            return
        for _ in events():
            pass

    waiting = [gevent.spawn(consume, depth) for _ in range(_AMOUNT)]
    gevent.sleep(_PERIOD * 0.9)
    meter.all_wait()
    gevent.sleep(_SECONDS)
    meter.end()
    gevent.killall(waiting)
    return meter.figures


async def _tasks(depth: int) -> dict[str, float]:
    meter = _Meter()

    async def events() -> AsyncIterator[str]:
        while True:
            await asyncio.sleep(_PERIOD)
            meter.wakeups += 1
            yield f"data: {meter.wakeups}\n\n"

    async def consume(through: int) -> None:
        if through:
            await consume(through - 1)
            return
        async for _ in events():
            pass

    waiting = [asyncio.ensure_future(consume(depth)) for _ in range(_AMOUNT)]
    await asyncio.sleep(_PERIOD * 0.9)
    meter.all_wait()
    await asyncio.sleep(_SECONDS)
    meter.end()
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    return meter.figures


def _on_uvloop(main: Callable[[], Awaitable[dict[str, float]]]) -> dict[str, float]:
    import uvloop

    loop = uvloop.new_event_loop()
    try:
        return loop.run_until_complete(main())
    finally:
        loop.close()


KINDS: dict[str, Callable[[], dict[str, float]]] = {
    "greenlet": lambda: _greenlets(0),
    "greenlet, deep": lambda: _greenlets(_DEEP),
    "task and async generator (uvloop)": lambda: _on_uvloop(lambda: _tasks(0)),
    "task and async generator (uvloop), deep": lambda: _on_uvloop(lambda: _tasks(_DEEP)),
}


def measure() -> dict[str, dict[str, float]]:
    """Measure each kind in a process of its own; takes about four seconds each."""
    figures = {}
    for kind in KINDS:
        command = [sys.executable, "-m", "benchmarks.waiting", "--kind", kind]
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        figures[kind] = json.loads(answer.stdout)
    return figures


def table(figures: dict[str, dict[str, float]]) -> str:
    """Give the figures as a Markdown table."""
    lines = ["| 10,000 that wait | KiB each | CPU µs per wake-up |", "|---|---|---|"]
    for kind, values in figures.items():
        size, cpu = values["bytes"] / 1024, values["cpu_us_per_wakeup"]
        lines.append(f"| {kind} | {size:.1f} | {cpu:.1f} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table, or JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.waiting",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    parser.add_argument("--kind", choices=KINDS, help="only this one, in this process; JSON")
    options = parser.parse_args()
    if options.kind:
        text = json.dumps(KINDS[options.kind]())
    else:
        figures = measure()
        text = json.dumps(figures, indent=2) if options.json else table(figures)
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
