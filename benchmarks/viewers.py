"""Viewers of one run, a relayed stream that the server stores: each has to get every chunk."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from types import TracebackType

from benchmarks.client.ids import RunIds
from benchmarks.client.load import Load, Stream
from benchmarks.client.order import OrderCheck
from benchmarks.open_streams import open_all
from benchmarks.published_events import Deliveries
from benchmarks.server_process import Running
from benchmarks.subscribers import Window
from benchmarks.upstream import AROUND, Upstream, read_chunk

_read_chunk = lru_cache(maxsize=256)(read_chunk)
"""All viewers get the same chunks; a client that reads each of them again would be the limit."""


class Viewers:
    """Streams of one run, which the first of them has started, in the load client's thread.

    `upstream` is the one that the server relays, and sends at `rate`.
    """

    def __init__(self, server: Running, upstream: Upstream, rate: float, patience: float) -> None:
        self._server = server
        self._upstream = upstream
        self._rate = rate
        self._patience = patience
        self._deliveries = Deliveries()
        self.load = Load(server.port, (upstream,))

    def __enter__(self) -> Viewers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.load.__exit__(kind, error, trace)

    def open(self, amount: int) -> bool:
        """Start the run and have so many view it, the one that started it among them.

        Gives whether all have every chunk that has been sent so far.
        """
        starter = self._stream(self._server.request("relay"), self._first_number)
        if not open_all(self.load, lambda: starter, 1, self._patience):
            return False
        assert starter.check.ids is not None
        run = starter.check.ids.run
        if not run:
            return False
        request = self._server.request("run", run=run)
        came = open_all(
            self.load, lambda: self._stream(request, self._number), amount - 1, self._patience
        )
        return came and self.settle()

    def settle(self) -> bool:
        """Wait until all have every chunk that has been sent; give whether they do."""
        return self.load.run(
            lambda: self._deliveries.received >= len(self.load.streams) * self._upstream.sent,
            self._patience,
        )

    def window(self, seconds: float) -> Window:
        """Measure for a time, from one chunk's last delivery to another's."""
        deliveries, upstream = self._deliveries, self._upstream
        self.settle()
        received, sent, cpu = deliveries.received, upstream.sent, self._server.cpu()
        deliveries.delays.clear()
        deliveries.timing = True
        self.load.run_for(seconds)
        self.settle()
        deliveries.timing = False
        return Window(
            published=upstream.sent - sent,
            deliveries=deliveries.received - received,
            cpu=self._server.cpu() - cpu,
            offered=seconds * self._rate,
            delays=[deliveries.delays[number] for number in range(sent, upstream.sent)],
        )

    def end(self) -> list[str]:
        """Have the run end; say what was wrong: each should have had all of it, with its ids."""
        late = not self.settle()
        self._upstream.finish()
        self.load.run_to_end(self._patience)
        for stream in self.load.streams:
            stream.check.expect(self._upstream.sent)
            if stream.check.ids:
                stream.check.ids.expect(self._upstream.sent + AROUND)
        faults = ["not every chunk came in time"] * late + self.load.faults()
        runs = {stream.check.ids.run for stream in self.load.streams if stream.check.ids}
        if len(runs) > 1:
            faults.append(f"events of {len(runs)} runs")
        return faults

    def _stream(self, request: bytes, number: Callable[[bytes], int | None]) -> Stream:
        # Begun is a stream with its first chunk.
        return Stream(request, OrderCheck(1, number, ids=RunIds()))

    def _number(self, data: bytes) -> int | None:
        chunk = _read_chunk(data)
        if chunk is None:
            return None
        self._deliveries.count(chunk.number, chunk.sent)
        return chunk.number

    def _first_number(self, data: bytes) -> int | None:
        number = self._number(data)
        self._upstream.received += number is not None
        return number
