"""Machines, their links and their server of Redis fail at random, and nothing may be lost."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from tests.live.kit.chaos import SECONDS, SEED, Chaos
from tests.live.kit.faults import pause_a_worker, start_again
from tests.live.kit.linked_machines import LinkedMachine, linked_machines
from tests.live.kit.links import Link
from tests.live.kit.machines import TOKEN
from tests.live.kit.redis_server import RedisServer, redis_server
from tests.live.kit.tales import tale_upstream
from tests.redis_server import programs


def start_redis_again(redis: RedisServer, choice: random.Random) -> None:
    """SIGKILL; it comes back after a while with all that it has acknowledged."""
    redis.stop(signal.SIGKILL)
    time.sleep(choice.uniform(0.0, 1.5))
    redis.start()


def freeze_redis(redis: RedisServer, choice: random.Random) -> None:
    """It answers nothing for a while, as if it were swapping."""
    redis.freeze()
    time.sleep(choice.uniform(0.1, 1.5))
    redis.thaw()


def set_for_a_while(
    redis: RedisServer,
    wrong: Sequence[str | int],
    right: Sequence[str | int],
    choice: random.Random,
) -> None:
    """It refuses to store anything until somebody sets it right."""
    redis.command(*wrong)
    time.sleep(choice.uniform(0.1, 1.0))
    redis.command(*right)


def disturb_link(disturb: Callable[[], None], link: Link, choice: random.Random) -> None:
    """A link is broken for a while."""
    disturb()
    time.sleep(choice.uniform(0.1, 2.0))
    link.repair()


def faults_of(
    machines: Sequence[LinkedMachine], redis: RedisServer, choice: random.Random
) -> dict[str, Callable[[], None]]:
    """What may happen to machines and their server."""

    def one() -> LinkedMachine:
        return choice.choice(machines)

    def broken(how: Callable[[Link], Callable[[], None]]) -> None:
        link = one().link
        disturb_link(how(link), link, choice)

    return {
        "a machine is killed": lambda: start_again(one()),
        "a machine's worker is paused": lambda: pause_a_worker(one(), choice),
        "a machine's workers are replaced": lambda: one().reload(),
        "a link is cut": lambda: broken(lambda link: link.cut),
        "a link is reset": lambda: one().link.reset(),
        "a link is a black hole": lambda: broken(lambda link: link.drop),
        "a link lets no answers through": lambda: broken(
            lambda link: partial(link.drop, answers_only=True)
        ),
        "a link is slow": lambda: broken(lambda link: partial(link.slow_down, 0.2)),
        "a link is narrow": lambda: broken(lambda link: partial(link.slow_down, 0.0, 20_000)),
        "Redis is killed": lambda: start_redis_again(redis, choice),
        "Redis is paused": lambda: freeze_redis(redis, choice),
        "Redis is a replica of nobody": lambda: set_for_a_while(
            redis, ["REPLICAOF", "127.0.0.1", 1], ["REPLICAOF", "NO", "ONE"], choice
        ),
        "the memory of Redis is full": lambda: set_for_a_while(
            redis, ["CONFIG", "SET", "maxmemory", 1], ["CONFIG", "SET", "maxmemory", 0], choice
        ),
        "Redis closes all connections": lambda: redis.command("CLIENT", "KILL", "TYPE", "normal"),
        "Redis forgets its scripts": lambda: redis.command("SCRIPT", "FLUSH"),
    }


@pytest.mark.parametrize("kind", programs())
def test_machines(tmp_path: Path, kind: str) -> None:
    """Two of them; what the server has acknowledged is on its disk."""
    with (
        redis_server(tmp_path / kind, kind, persistence="always") as redis,
        tale_upstream() as upstream,
        linked_machines(tmp_path, redis, 2, upstream) as machines,
        Chaos([each.port for each in machines], SEED, TOKEN) as chaos,
    ):
        chaos.disturb(faults_of(machines, redis, chaos.random), SECONDS)
        chaos.assert_kept()
