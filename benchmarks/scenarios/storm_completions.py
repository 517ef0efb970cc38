"""Storm of completions: a redeploy ends the streams of all viewers, who come back with their ids.

The completions go on in the worker that is about to end. What their viewers come back for is
stored there, and read in the new one.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Sequence

from benchmarks.client.http import get
from benchmarks.client.ids import RunIds
from benchmarks.client.load import Load, Stream
from benchmarks.client.order import OrderCheck
from benchmarks.open_streams import open_all
from benchmarks.scenario import Metric, Options, Prepared, Sample, Scenario, client_limit
from benchmarks.scenarios import relay
from benchmarks.server_process import Running
from benchmarks.upstream import AROUND, Upstream, read_chunk

_VIEWERS = 3
"""Of each completion, with the client that began it."""

_RATE = 10.0
"""Chunks a second, of each completion."""


class _Viewer(Stream):
    """A stream of a completion, from its beginning or after the last event of another stream.

    Of each completion one viewer `counts` what has come of what the upstream has sent.
    """

    def __init__(
        self, server: Running, upstream: Upstream, ids: RunIds | None = None, *, counts: bool
    ) -> None:
        self._upstream = upstream
        self._counts = counts
        self.ids = ids or RunIds()
        run, last = self.ids.run, self.ids.last
        request = server.request("relay")
        if run:
            path = server.stack.path("run", run=run)
            request = get(path, server.port, f"{run}.{last}" if last else "")
        # The first event has no chunk with a number.
        first = max(last - 1, 0)
        super().__init__(request, OrderCheck(first + 1, self._number, first=first, ids=self.ids))

    def await_end(self) -> None:
        """Go on until the chunk that says that it is the last."""
        self.check.expect(sys.maxsize)

    def end_here(self) -> None:
        """Take it that what has come is all of it."""
        self.check.expect(self.check.next)

    def _number(self, data: bytes) -> int | None:
        chunk = read_chunk(data)
        if chunk is None:
            return None
        self._upstream.received += self._counts
        if chunk.last:
            self.check.expect(chunk.number + 1)
            self.ids.expect(chunk.number + 1 + AROUND)
        return chunk.number


def measure(server: Running, options: Options) -> Sample:
    """Reload the server; time the viewers' return until each has its next chunk; read to the end.

    Timed from the end of the last stream on: how long a worker gives its streams is not in it.
    """
    (upstream,) = server.beside
    assert isinstance(upstream, Upstream)
    with Load(server.port, server.beside) as load:
        runs = max(options.streams // _VIEWERS, 1)
        began = _open(load, [_Viewer(server, upstream, counts=True) for _ in range(runs)], options)
        others = [
            _Viewer(server, upstream, RunIds(viewer.ids.run), counts=False)
            for viewer in began
            for _ in range(_VIEWERS - 1)
        ]
        if not began or not _open(load, others, options):
            return Sample(faults=load.faults())
        load.run_for(options.seconds)
        server.process.send_signal(signal.SIGHUP)
        load.run(load.all_ended, options.patience)
        for viewer in (*began, *others):
            viewer.end_here()
        if faults := load.faults():
            return Sample(faults=faults)
    again = [
        _Viewer(server, upstream, RunIds(old.ids.run, old.ids.last), counts=old in began)
        for old in (*began, *others)
    ]
    with Load(server.port, server.beside) as load:
        cpu, start = server.cpu(), time.monotonic()
        served = _open(load, again, options)
        took, cpu = time.monotonic() - start, server.cpu() - cpu
        for viewer in again:
            viewer.await_end()
        upstream.finish()
        load.run_to_end(options.patience)
        sample = Sample(faults=load.faults())
    if served and not sample.faults:
        sample.remarks = client_limit(cpu, took)
        sample.values = {
            "served_seconds": took,
            "cpu_us_per_client": cpu / len(again) * 1e6,
        }
    return sample


def _open(load: Load, viewers: Sequence[_Viewer], options: Options) -> Sequence[_Viewer]:
    """Open them; gives them, or none if not all have had a chunk."""
    streams = iter(viewers)
    came = open_all(load, lambda: next(streams), len(viewers), options.patience)
    return viewers if came and not any(viewer.ended_at for viewer in viewers) else ()


def prepare(options: Options) -> contextlib.AbstractContextManager[Prepared]:
    """Have an upstream of a model's speed, and files for the server's logs."""
    return relay.upstream(options, _RATE)


SCENARIO = Scenario(
    name="storm_completions",
    title="Storm of completions: 300 viewers of 100 completions return after a redeploy",
    route="run",
    servers=("sseflask_service", "sseflask_redis"),
    reference="sseflask_service",
    metrics=(
        Metric("served_seconds", "s to serve all", ".2f"),
        Metric("cpu_us_per_client", "CPU µs/client", ",.0f"),
    ),
    charts=(),
    options=Options(streams=300, seconds=1, patience=40),
    measure=measure,
    rounds=5,
    prepare=prepare,
)
