"""Workers and machines are killed, paused and replaced at random, and nothing may be lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.live.kit.chaos import SECONDS, SEED, Chaos
from tests.live.kit.faults import kill_a_worker, pause_a_worker, start_again
from tests.live.kit.machines import TOKEN, single_machine
from tests.live.kit.tales import tale_upstream


def test_one_machine(tmp_path: Path) -> None:
    """Two workers with files."""
    with (
        tale_upstream() as upstream,
        single_machine(tmp_path, upstream) as machine,
        Chaos([machine.port], SEED, TOKEN) as chaos,
    ):
        faults: dict[str, Callable[[], None]] = {
            "a worker is killed": lambda: kill_a_worker(machine, chaos.random),
            "a worker is paused": lambda: pause_a_worker(machine, chaos.random),
            "all workers are replaced": machine.reload,
            "the machine is killed": lambda: start_again(machine),
        }
        chaos.disturb(faults, SECONDS)
        chaos.assert_kept()
