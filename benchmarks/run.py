"""Interleaved repetitions: each server in turn, freshly started, then all again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from benchmarks import servers
from benchmarks.others import OthersWatch
from benchmarks.running import Cores, NotStarted, running
from benchmarks.scenario import Options, Sample, Scenario
from benchmarks.stack import NoRoute, Stack

_DISTURBED = 0.05


def run_scenario(
    scenario: Scenario,
    stacks: Sequence[Stack],
    options: Options,
    repeats: int,
    cores: Cores,
    progress: Callable[[str], None],
) -> dict[str, list[Sample]]:
    """Give each server's samples; one that fails gets a sample that says so; the run goes on."""
    samples: dict[str, list[Sample]] = {stack.name: [] for stack in stacks}
    for repetition in range(repeats):
        for stack in stacks:
            progress(f"{scenario.name} {repetition + 1}/{repeats}: {stack.title}")
            samples[stack.name].append(_measure(scenario, stack, options, cores))
    return samples


def _measure(scenario: Scenario, stack: Stack, options: Options, cores: Cores) -> Sample:
    try:
        with (
            scenario.prepare(cores, options) as environment,
            running(stack, cores, environment) as server,
        ):
            before = len(server.messages())
            watch = OthersWatch(server, cores.server)
            sample = scenario.measure(server, options)
            others = watch.share()
            messages = server.messages()[before:]
    except NotStarted as error:
        return Sample(faults=[f"not started: {error}"])
    except NoRoute as error:
        return Sample(faults=[str(error)])
    if messages:
        sample.remarks.append(f"wrote {len(messages)} lines of errors, the last: {messages[-1]}")
    if others is not None:
        sample.values["others_percent"] = others * 100
        if others > _DISTURBED:
            sample.remarks.append(f"disturbed: others used {others:.0%} of the server's core")
    return sample


def load_stacks(
    names: Iterable[str], progress: Callable[[str], None]
) -> tuple[list[Stack], dict[str, list[Sample]]]:
    """Give the stacks that are installed; for each other one a sample that says what it lacks."""
    stacks = []
    absent = {}
    for name in names:
        try:
            stacks.append(servers.load(name))
        except ImportError as error:
            progress(f"{name} left out: {error}")
            absent[name] = [Sample(faults=[f"not installed: {error}"])]
    return stacks, absent
