"""Layers: where the CPU of a completion goes until its first chunk has come."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from benchmarks.client.load import Stream
from benchmarks.client.order import OrderCheck
from benchmarks.layers import layers_of
from benchmarks.scenario import Options, Prepared
from benchmarks.scenarios import relay
from benchmarks.server_process import Running
from benchmarks.upstream import read_chunk

_RATE = 0.02
"""Chunks a second: nothing but the first comes while it is measured."""


def make(server: Running) -> Callable[[], Stream]:
    """Give what makes the streams of new completions."""
    request = server.request("relay")

    def number(data: bytes) -> int | None:
        chunk = read_chunk(data)
        return None if chunk is None else chunk.number

    return lambda: Stream(request, OrderCheck(1, number, ids=relay.run_ids(server)))


def prepare(options: Options) -> contextlib.AbstractContextManager[Prepared]:
    """Have an upstream that sends one chunk at once."""
    return relay.upstream(options, _RATE)


SCENARIO = layers_of(
    "layers_first_chunk",
    "a completion until its first chunk",
    "relay",
    ("sseflask_service",),
    make,
    streams=300,
    prepare=prepare,
)
