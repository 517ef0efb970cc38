"""Slow reader: what one subscriber that never reads costs the others."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Sequence
from itertools import chain

from benchmarks.percentile import percentile
from benchmarks.scenario import Figure, Metric, Options, Sample, Scenario
from benchmarks.server_process import Running
from benchmarks.subscribers import CHANNEL, Subscribers, with_log

_SIZE = 1000
_RATE = 40.0
_WARM_UP = 10
_PAIRS = 3
_FILLING = 200
"""Events after which nothing more goes into the buffers between the server and who never reads."""

_BUFFER = 4096
_SEGMENT = 536
"""A small segment size keeps the server's own buffer small: on loopback it would be megabytes."""


@contextlib.contextmanager
def never_reading(server: Running) -> Iterator[None]:
    """Have a subscriber that reads the head of its response and nothing more."""
    with socket.socket() as connection:
        connection.settimeout(10)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SEGMENT)
        connection.connect(("127.0.0.1", server.port))
        connection.send(server.request("subscribe", channel=CHANNEL))
        if not connection.recv(1).startswith(b"H"):
            raise ConnectionError("no response")
        yield


def measure(server: Running, options: Options) -> Sample:
    """Time deliveries to those that read, in turns without and with one that does not."""
    alone: list[Sequence[int]] = []
    together: list[Sequence[int]] = []
    with Subscribers(server, options.patience, size=_SIZE) as subscribers:
        came = subscribers.open(options.streams) and subscribers.publish_events(_WARM_UP)
        for _ in range(_PAIRS if came else 0):
            alone += subscribers.window(options.seconds, _RATE).delays
            with never_reading(server):
                if not subscribers.publish_events(_FILLING):
                    break
                together += subscribers.window(options.seconds, _RATE).delays
        sample = Sample(faults=subscribers.faults())
    if not any(alone) or not any(together):
        sample.faults.append("an event did not reach everybody")
        return sample
    without, with_it = _all(alone), _all(together)
    sample.values = {
        "slowdown": with_it / without,
        "typical_slowdown": _typical(together) / _typical(alone),
        "without_p99_ms": without,
        "with_p99_ms": with_it,
    }
    return sample


def _all(delays: Sequence[Sequence[int]]) -> float:
    """Give the milliseconds in which 99 % of all deliveries are made."""
    return percentile(sorted(chain.from_iterable(delays)), 99) / 1e6


def _typical(delays: Sequence[Sequence[int]]) -> float:
    """Give the milliseconds in which 99 % have an event, the median over the events.

    A moment in which the machine does something else is not in it.
    """
    return percentile(sorted(percentile(sorted(each), 99) for each in delays if each), 50) / 1e6


SCENARIO = Scenario(
    name="slow_reader",
    title="Slow reader: one of 1,000 subscribers never reads",
    route="subscribe",
    servers=("sseflask_service", "starlette_uvicorn"),
    reference="starlette_uvicorn",
    metrics=(
        Metric("slowdown", "p99 of the others, times that without it", ".2f"),
        Metric("typical_slowdown", "the same, median of the events", ".2f"),
        Metric("without_p99_ms", "p99 ms without", ".1f"),
        Metric("with_p99_ms", "p99 ms with", ".1f"),
    ),
    charts=(),
    options=Options(streams=1000, seconds=0.8),
    measure=measure,
    rounds=2,
    figures=(
        Figure(
            text="slow reader: one of 1,000 never reads, p99 of the others at most 1.2 x as long",
            metric="slowdown",
            server="sseflask_service",
            at_most=1.2,
        ),
    ),
    prepare=with_log,
)
