"""What happens to machines, each with the recovery from it."""

from __future__ import annotations

import random
import time

from tests.live.kit.machines import Machine
from tests.live.kit.waiting import until


def kill_a_worker(machine: Machine, choice: random.Random) -> None:
    """SIGKILL to one worker, and wait for the next."""
    worker = choice.choice(machine.server.workers())
    worker.kill()
    until(
        lambda: len(now := machine.server.workers()) == machine.workers and worker not in now,
        "another worker in its place",
    )


def pause_a_worker(machine: Machine, choice: random.Random) -> None:
    """A machine that swaps, or a debugger: it goes on as if nothing had been."""
    worker = choice.choice(machine.server.workers())
    worker.suspend()
    time.sleep(choice.uniform(0.1, 1.5))
    worker.resume()


def start_again(machine: Machine) -> None:
    """SIGKILL to all of a machine, which then starts."""
    machine.kill()
    machine.start()
