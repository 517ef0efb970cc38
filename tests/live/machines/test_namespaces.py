"""Machines in network namespaces: cables are pulled out, and packets are lost without a word."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.live.kit.chaos import SECONDS, SEED, Chaos
from tests.live.kit.connection import fetch
from tests.live.kit.faults import start_again
from tests.live.kit.links import Link
from tests.live.kit.machines import TOKEN, Machine
from tests.live.kit.namespaces import Host, Switch, network_of
from tests.live.kit.redis_server import RedisServer, redis_server
from tests.live.kit.tales import tale_upstream
from tests.live.kit.waiting import until


class RemoteMachine(Machine):
    """A machine on a host of its own; clients of this machine reach it by a port here.

    Args:
        host: its host.
        directory: for its files and logs.
        settings: further environment variables.
        way: forwards connections to it.
    """

    def __init__(self, host: Host, directory: Path, settings: dict[str, str], way: Link) -> None:
        super().__init__(host.name, directory, settings, prefix=host.prefix, host="0.0.0.0")
        way.target = self.port
        self.host = host
        self.way = way

    def wait_until_ready(self) -> None:
        def answers() -> bool:
            with contextlib.suppress(OSError, AssertionError):
                return fetch(self.way.port, "/healthz").status == 200
            return False

        until(answers, f"{self.name} answers", seconds=40)


def machines_on(
    stack: contextlib.ExitStack,
    hosts: Sequence[Host],
    directory: Path,
    settings: dict[str, str],
) -> list[RemoteMachine]:
    """One machine on each host."""
    machines = []
    for n, host in enumerate(hosts):
        way = stack.enter_context(Link(0, host.address))
        machine = RemoteMachine(host, directory / f"{n}", settings, way)
        stack.callback(machine.close)
        machines.append(machine)
        machine.launch()
    for machine in machines:
        stack.callback(machine.begin_to_stop)
        machine.wait_until_ready()
    return machines


def pull_out(machine: RemoteMachine, switch: Switch, seconds: float) -> None:
    """Leave a cable out for a while."""
    machine.host.pull_out(switch)
    try:
        time.sleep(seconds)
    finally:
        machine.host.plug_in(switch)


def faults_of(machines: Sequence[RemoteMachine], chaos: Chaos) -> dict[str, Callable[[], None]]:
    choice = chaos.random

    def one() -> RemoteMachine:
        return choice.choice(machines)

    return {
        "a machine is without the stores": lambda: pull_out(
            one(), "stores", choice.uniform(0.2, 2.5)
        ),
        "a machine is without clients": lambda: pull_out(
            one(), "clients", choice.uniform(0.2, 2.5)
        ),
        "a machine is killed": lambda: start_again(one()),
    }


def test_cables_are_pulled_out(tmp_path: Path) -> None:
    """Two hosts, one server of Redis on this machine; nothing may be lost."""
    with contextlib.ExitStack() as stack:
        network, hosts = stack.enter_context(network_of(2))
        upstream = stack.enter_context(tale_upstream(network.here))
        redis: RedisServer = stack.enter_context(
            redis_server(tmp_path / "redis", persistence="always", host=network.store)
        )
        settings = {"REDIS_URL": f"redis://{network.store}:{redis.port}/0", **upstream}
        machines = machines_on(stack, hosts, tmp_path, settings)
        ports = [each.way.port for each in machines]
        chaos = stack.enter_context(Chaos(ports, SEED, TOKEN))
        faults = faults_of(machines, chaos)
        for name, happens in faults.items():
            chaos.disturb({name: happens}, 0.01)
        chaos.disturb(faults, SECONDS / 2)
        chaos.assert_kept()
