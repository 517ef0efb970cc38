"""Which layer a server's CPU time goes to, by py-spy: it reads the stacks from outside the process.

The time of a window is measured without the profiler. The kernel's part of it is what the system
says. The rest is divided as py-spy sees it in a second window, from samples of threads that hold
the interpreter's lock: what waits, and most calls of the system, have released it. The server is
not stopped for a sample, and takes some percent longer all the same.

Each sample counts for the innermost layer on the stack, the standard library and compiled code for
whatever has called them. A stack without Python is the event loop's.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from benchmarks.client.load import Load, Stream
from benchmarks.open_streams import faults, open_all
from benchmarks.scenario import Metric, Options, Prepared, Sample, Scenario, nothing_to_prepare
from benchmarks.server_process import ROOT, Running, system_time_of, wait_until

LAYERS = ("gevent", "gunicorn", "flask", "sseflask", "other")

METRICS = (
    Metric("cpu_us", "CPU µs", ",.0f"),
    *(
        Metric(f"{layer}_us", layer.capitalize(), ",.0f")
        for layer in ("gevent", "gunicorn", "flask")
    ),
    Metric("sseflask_us", "sseflask", ",.0f"),
    Metric("other_us", "the rest", ",.0f"),
    Metric("kernel_us", "kernel", ",.0f"),
    Metric("profiled", "CPU while profiled, x", ".2f"),
)

_PACKAGES = {
    **dict.fromkeys(("gevent", "greenlet"), "gevent"),
    **dict.fromkeys(("gunicorn", "gunicorn_h1c"), "gunicorn"),
    **dict.fromkeys(("flask", "werkzeug", "blinker", "flask_limiter", "limits"), "flask"),
}
_OWN = f"{ROOT / 'sseflask'}/"
_APPLICATION = f"{ROOT / 'benchmarks'}/"

_RATE = 500
"""Samples a second."""

_PATIENCE = 20.0

_WARM_UP = 300


class NotProfiled(Exception):
    """py-spy is not there, or may not read other processes."""


def layer_of(stack: str) -> str:
    """Give the layer of a stack as py-spy writes it: ``function (file)``, the outermost first."""
    for frame in reversed(stack.split(";")):
        path = frame.partition(" (")[2].removesuffix(")")
        _, installed, name = path.rpartition("/site-packages/")
        if installed:
            return _PACKAGES.get(name.partition("/")[0].removesuffix(".py"), "other")
        if path.startswith(_OWN):
            return "sseflask"
        if path.startswith(_APPLICATION):
            return "other"
    return "other" if stack else "gevent"


def shares(lines: Iterable[str]) -> dict[str, float]:
    """Give each layer's share of the samples, from the lines of py-spy's format ``raw``."""
    found: Counter[str] = Counter()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        found[layer_of(stack)] += int(count)
    total = sum(found.values())
    return {layer: found[layer] / total for layer in LAYERS} if total else {}


@contextlib.contextmanager
def profiled(process: int) -> Iterator[Callable[[], dict[str, float]]]:
    """Profile a process and its children for the time of the block; gives what ends it.

    That returns the shares of the layers. Raises NotProfiled.
    """
    with contextlib.ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-layers-")))
        samples, said = folder / "samples", opened.enter_context((folder / "said").open("w+b"))
        command = [
            str(Path(sys.executable).with_name("py-spy")),
            "record",
            "--subprocesses",
            "--gil",
            "--nonblocking",
        ]
        command += ["--nolineno", "--full-filenames", f"--rate={_RATE}", "--format=raw"]
        try:
            spy = subprocess.Popen(
                [*command, f"--output={samples}", f"--pid={process}"], stdout=said, stderr=said
            )
        except FileNotFoundError as error:
            raise NotProfiled("py-spy is not installed") from error
        opened.callback(_end, spy)

        def has_begun() -> bool:
            return b"Sampling" in (folder / "said").read_bytes() or spy.poll() is not None

        def finish() -> dict[str, float]:
            spy.send_signal(signal.SIGINT)
            spy.wait(_PATIENCE)
            return shares(samples.read_text().splitlines())

        if not wait_until(has_begun, _PATIENCE) or spy.poll() is not None:
            text = (folder / "said").read_text(errors="replace").strip()
            raise NotProfiled(text.rpartition("\n")[2] or "py-spy does not begin")
        yield finish


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def layers_of(
    name: str,
    what: str,
    route: str,
    servers: tuple[str, ...],
    make: Callable[[Running], Callable[[], Stream]],
    *,
    streams: int = 3000,
    prepare: Callable[[Options], contextlib.AbstractContextManager[Prepared]] = nothing_to_prepare,
) -> Scenario:
    """Give the scenario that divides the CPU of opening streams by layers.

    `make` gives, for a server, what makes them; `what` names them in the title.
    """
    return Scenario(
        name=name,
        title=f"Layers: where the CPU of {what} goes",
        route=route,
        servers=servers,
        reference=servers[0],
        metrics=METRICS,
        charts=(),
        # The time is what opening takes.
        options=Options(streams=streams, seconds=0),
        measure=lambda server, options: measure_layers(server, options, make(server)),
        rounds=5,
        prepare=prepare,
    )


def measure_layers(server: Running, options: Options, make: Callable[[], Stream]) -> Sample:
    """Open streams, as many again, and as many under the profiler; all of them stay open."""
    with Load(server.port, server.beside) as load:

        def opened(streams: int) -> bool:
            return open_all(load, make, streams, options.patience)

        if not opened(min(_WARM_UP, options.streams)):
            return Sample(faults=faults(load))
        cpu, kernel = server.cpu(), _system_time(server)
        if not opened(options.streams):
            return Sample(faults=faults(load))
        cpu, kernel = server.cpu() - cpu, _system_time(server) - kernel
        try:
            with profiled(server.process.pid) as finish:
                before = server.cpu()
                if not opened(options.streams):
                    return Sample(faults=faults(load))
                profiled_cpu = server.cpu() - before
                parts = finish()
        except NotProfiled as error:
            return Sample(faults=[str(error)])
        found = faults(load)
    if found or not parts:
        return Sample(faults=found or ["py-spy has no samples"])
    each, in_kernel = (seconds / options.streams * 1e6 for seconds in (cpu, kernel))
    return Sample(
        {
            "cpu_us": each,
            **{f"{layer}_us": share * (each - in_kernel) for layer, share in parts.items()},
            "kernel_us": in_kernel,
            "profiled": profiled_cpu / cpu,
        }
    )


def _system_time(server: Running) -> float:
    return sum(system_time_of(process) for process in server.processes())
