"""Streams of runs of numbers: every event is checked, by its number and by its id."""

from __future__ import annotations

from benchmarks.client.ids import RunIds
from benchmarks.client.load import Stream
from benchmarks.client.order import OrderCheck


def run_stream(request: bytes, count: int) -> Stream:
    """Give a stream of all the numbers of a run that are below `count`, and of its end."""
    ids = RunIds()
    ids.expect(count + 1)
    return Stream(request, OrderCheck(count, _number, ids=ids))


def _number(data: bytes) -> int | None:
    return None if data.startswith(b'{"status":') else int(data)
