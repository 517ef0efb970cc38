"""Machines with files of their own, which share a server of Redis, each over its own link."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.live.kit.connection import fetch
from tests.live.kit.links import Link
from tests.live.kit.machines import Machine
from tests.live.kit.redis_server import RedisServer
from tests.live.kit.waiting import until


class LinkedMachine(Machine):
    """A machine whose stores are on a server of Redis behind its link."""

    def __init__(
        self, name: str, directory: Path, link: Link, settings: Mapping[str, str], workers: int
    ) -> None:
        url = {"REDIS_URL": f"redis://127.0.0.1:{link.port}/0"}
        super().__init__(name, directory, {**url, **settings}, workers=workers)
        self.link = link

    def stores(self) -> list[str]:
        """What it says of its stores, of channels and of runs; it lives, and is ready."""
        assert fetch(self.port, "/healthz").status == 200
        answer = fetch(self.port, "/readyz")
        assert answer.status == 200
        said = json.loads(answer.body)
        return [said[store]["log"] for store in ("channels", "completions")]

    def wait_until_available(self) -> None:
        """Until it can use its stores."""
        until(lambda: self.stores() == ["available"] * 2, f"{self.name} can use its stores")


@contextlib.contextmanager
def linked_machines(
    directory: Path,
    redis: RedisServer,
    count: int,
    settings: Mapping[str, str] | None = None,
    *,
    workers: int = 1,
) -> Iterator[list[LinkedMachine]]:
    """Several machines with one server of Redis."""
    machines = []
    with contextlib.ExitStack() as stack:
        for n in range(count):
            link = stack.enter_context(Link(redis.port))
            name = f"machine-{n + 1}"
            machine = LinkedMachine(name, directory / name, link, settings or {}, workers)
            stack.callback(machine.close)
            machines.append(machine)
            machine.launch()
        for machine in machines:
            stack.callback(machine.begin_to_stop)
            stack.callback(machine.link.repair)
        for machine in machines:
            machine.wait_until_ready()
        yield machines
