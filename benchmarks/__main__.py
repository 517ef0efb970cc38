"""Measure servers side by side.

python -m benchmarks --scenario tick --servers sseflask,uvicorn --streams 500
python -m benchmarks --check        every scenario, and whether each figure holds
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks import scenarios, servers
from benchmarks.message import charts
from benchmarks.record import read
from benchmarks.report import judge, merged, stored, table, verdict_line
from benchmarks.run import Budget, Plan, load_stacks, run
from benchmarks.scenario import Scenario
from benchmarks.server_process import Cores, raise_descriptor_limit


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Give the options; ends the program where a scenario or server is not known."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--scenario", default="all", help=f"names with commas: {', '.join(scenarios.names())}"
    )
    parser.add_argument(
        "--servers",
        default="",
        help="names, or words of them such as sseflask or uvicorn, with commas; else all that the "
        f"scenario measures: {', '.join(servers.names())}",
    )
    parser.add_argument("--streams", type=int, help="streams open at a time, else the scenario's")
    parser.add_argument("--seconds", type=float, help="time measured, else the scenario's")
    parser.add_argument("--repeats", type=int, default=3, help="interleaved rounds at most (3)")
    parser.add_argument(
        "--minutes", type=float, default=10, help="time for all; rounds that take longer end (10)"
    )
    parser.add_argument(
        "--into", type=Path, help="replace these scenarios in a result file of this machine"
    )
    parser.add_argument(
        "--no-charts",
        action="store_true",
        help="a result without charts: those in docs/charts/ are of another one",
    )
    parser.add_argument("--check", action="store_true", help="fail unless every figure holds")
    parser.add_argument("--output", type=Path, help="JSON file, else results/<date>.json here")
    options = parser.parse_args(arguments)
    options.scenario = _names(parser, "scenario", options.scenario, scenarios.names())
    options.servers = _names(parser, "server", options.servers, servers.names())
    given = (options.repeats, options.minutes, options.streams, options.seconds)
    if any(number is not None and number <= 0 for number in given):
        parser.error("--repeats, --minutes, --streams and --seconds have to be positive")
    if options.output and options.output.suffix != ".json":
        parser.error("--output has to end in .json; the charts go into a folder named without it")
    if options.into and not options.into.is_file():
        parser.error(f"--into needs a result file; there is no {options.into}")
    return options


def _names(parser: argparse.ArgumentParser, kind: str, given: str, known: list[str]) -> list[str]:
    if given == "all":
        return known
    found: list[str] = []
    for word in filter(None, given.split(",")):
        named = [word] if word in known else [name for name in known if word in name.split("_")]
        if not named:
            parser.error(f"no {kind} {word!r}; there are {', '.join(known)}")
        found += named
    return list(dict.fromkeys(found))


def _progress(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Wait until no other run of the harness is under way here, and keep others waiting."""
    name = Path(tempfile.gettempdir()) / f"sseflask-benchmarks-{os.getuid()}.lock"
    with name.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _progress("waiting for another run to end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _plan(name: str, options: argparse.Namespace) -> Plan:
    scenario = scenarios.load(name)
    if options.no_charts:
        scenario = replace(scenario, charts=())
    size = scenario.options
    if options.streams:
        size = replace(size, streams=options.streams)
    if options.seconds:
        size = replace(size, seconds=options.seconds)
    named = options.servers or (options.check and _needed(scenario)) or scenario.servers
    stacks, absent = load_stacks(named or servers.names(), _progress)
    with_route = [stack for stack in stacks if scenario.route in stack.routes]
    if not named:
        absent = {}
    if not named or with_route:
        stacks = with_route
    return Plan(scenario, size, stacks, absent)


def _needed(scenario: Scenario) -> list[str]:
    named = (name for figure in scenario.figures for name in (figure.server, figure.reference))
    return [name for name in dict.fromkeys(named) if name]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the scenarios, print tables, write the JSON file; 1 where `--check` finds a failure."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    # Half a second, which a wrong option need not wait for; that it is missing is said before
    # anything is measured.
    from benchmarks.charts import draw

    raise_descriptor_limit()
    # So that no server stays behind: as with Ctrl-C, what is under way is cleaned up first.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    cores = Cores.choose()
    plans = [_plan(name, options) for name in options.scenario]
    # Those of one round last: what the time is too short for is then a repetition.
    plans.sort(key=lambda plan: bool(plan.scenario.rounds))
    with alone(), cores.client_side():
        run(plans, options.repeats, Budget(options.minutes * 60), cores, _progress)
    for plan in plans:
        sys.stdout.write(f"\n{table(plan)}\n")
    moment = time.strftime("%Y-%m-%dT%H-%M-%S")
    output = options.output or Path(__file__).parent / "results" / f"{moment}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    document = stored(moment, cores, plans)
    if options.into:
        output, document = options.into, merged(json.loads(options.into.read_text()), document)
    output.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    folder = output.with_suffix("")
    drawn = list(charts(read(document)))
    if drawn:
        folder.mkdir(exist_ok=True)
    for chart in drawn:
        draw(chart, folder)
    _progress(f"written to {output}" + f", charts to {folder}/" * bool(drawn))
    if not options.check:
        return 0
    verdicts = {text: verdict for plan in plans for text, verdict in judge(plan).items()}
    for text, verdict in verdicts.items():
        sys.stdout.write(verdict_line(text, verdict) + "\n")
    return 0 if all(verdict.holds for verdict in verdicts.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
