"""Interleaved rounds: all scenarios, each on all its servers, freshly started; then again."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from benchmarks import servers
from benchmarks.other_processes import OthersWatch
from benchmarks.scenario import Options, Sample, Scenario
from benchmarks.server_process import Cores, NotStarted, running
from benchmarks.stack import NoRoute, Stack

_DISTURBED = 0.05

Progress = Callable[[str], None]


@dataclass
class Plan:
    """A scenario at a size, the stacks to measure, and what came out, a sample a round."""

    scenario: Scenario
    options: Options
    stacks: Sequence[Stack]
    samples: dict[str, list[Sample]] = field(default_factory=dict)


class Budget:
    """Tells whether there is time for one more measurement. Not thread-safe."""

    def __init__(self, seconds: float) -> None:
        self._began = time.monotonic()
        self._seconds = seconds

    @property
    def used(self) -> float:
        """The seconds since the budget was opened."""
        return time.monotonic() - self._began

    def allows(self, seconds: float) -> bool:
        """Whether something that takes so long would end in time."""
        return self.used + seconds <= self._seconds


def run(
    plans: Sequence[Plan], rounds: int, budget: Budget, cores: Cores, progress: Progress
) -> bool:
    """Fill the plans' samples, round by round; give whether the time was enough for all of it.

    One that fails gets a sample that says so, and the run goes on. A measurement is expected to
    take as long as it did in the round before.
    """
    steps = list(_steps(plans, rounds))
    took: dict[tuple[str, str], float] = {}
    for index, (turn, plan, stack) in enumerate(steps):
        key = (plan.scenario.name, stack.name)
        if not budget.allows(took.get(key, 0)):
            progress(f"the time is over: {len(steps) - index} of {len(steps)} steps left out")
            return False
        progress(
            f"{index + 1}/{len(steps)}, {budget.used / 60:.1f} min: "
            f"{plan.scenario.name} {turn + 1}: {stack.title}"
        )
        began = budget.used
        sample = _measure(plan.scenario, stack, plan.options, cores, progress)
        plan.samples.setdefault(stack.name, []).append(sample)
        took[key] = budget.used - began
    return True


def _steps(plans: Sequence[Plan], rounds: int) -> Iterator[tuple[int, Plan, Stack]]:
    for turn in range(rounds):
        for plan in plans:
            if turn < (plan.scenario.rounds or rounds):
                yield from ((turn, plan, stack) for stack in plan.stacks)


def _measure(
    scenario: Scenario, stack: Stack, options: Options, cores: Cores, progress: Progress
) -> Sample:
    try:
        with (
            scenario.prepare(options) as prepared,
            running(stack, cores, prepared.environment, prepared.beside) as server,
        ):
            before = len(server.complaints())
            watch = OthersWatch(server, cores.server)
            sample = scenario.measure(server, options)
            others = watch.share()
            complaints = server.complaints()[before:]
    except NotStarted as error:
        return Sample(faults=[f"not started: {error}"])
    except NoRoute as error:
        return Sample(faults=[str(error)])
    except Exception as error:
        progress("".join(traceback.format_exception(error)).rstrip())
        return Sample(faults=[f"not measured: {error!r}"])
    if complaints:
        progress(f"  its last of {len(complaints)} lines of errors: {complaints[-1]}")
        sample.remarks.append("wrote to its error log")
    if others is not None:
        sample.values["others_percent"] = others * 100
        if others > _DISTURBED:
            sample.remarks.append(f"disturbed: others used over {_DISTURBED:.0%} of its core")
    return sample


def load_stacks(
    names: Iterable[str], progress: Progress
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
