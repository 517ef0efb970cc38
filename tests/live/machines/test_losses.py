"""The server of Redis loses what it has: everybody gets to know what is missing."""

from __future__ import annotations

import contextlib
import itertools
import signal
from collections.abc import Sequence
from pathlib import Path

from tests.live.kit.chaos import SECONDS, SEED, Chaos
from tests.live.kit.linked_machines import LinkedMachine, linked_machines
from tests.live.kit.links import Link
from tests.live.kit.machines import TOKEN
from tests.live.kit.publishing import error_of
from tests.live.kit.redis_server import RedisServer, redis_server
from tests.live.kit.run_events import Decoded
from tests.live.kit.runs import ask, ask_start, attach, rest, run_of, start, take
from tests.live.kit.scripted import ScriptedUpstream
from tests.live.kit.waiting import until


class Pair:
    """A master and its replica, which takes its place when the master is lost.

    Args:
        directory: for their files.
        machines: those whose links lead to the master.
    """

    def __init__(self, directory: Path, master: RedisServer) -> None:
        self._directory = directory
        self._numbers = itertools.count(2)
        self.master = master
        self.machines: Sequence[LinkedMachine] = ()

    def restart_empty(self) -> None:
        self.master.restart(data=False)

    def empty(self) -> None:
        self.master.command("FLUSHALL")

    def evict(self) -> None:
        """The memory is full, and keys are thrown away, whichever."""
        used = self.master.info("memory")["used_memory"]
        evicted = self.master.info("stats")["evicted_keys"]
        self.master.command("CONFIG", "SET", "maxmemory-policy", "allkeys-random")
        self.master.command("CONFIG", "SET", "maxmemory", int(used - 20_000))
        until(lambda: self.master.info("stats")["evicted_keys"] > evicted + 20, "keys were evicted")
        self.master.command("CONFIG", "SET", "maxmemory", 0)

    def promote(self, chaos: Chaos) -> None:
        """The master is lost with what its replica has not got, and the replica is promoted."""
        replica = RedisServer(self._directory / f"{next(self._numbers)}")
        try:
            replica.start()
            with Link(self.master.port) as link:
                replica.replicate(link.port)
                link.drop()
                chaos.let_publish(3)
                self.master.stop(signal.SIGKILL)
                replica.promote()
        except BaseException:
            replica.close()
            raise
        self.master.close()
        self.master = replica
        for machine in self.machines:
            machine.link.target = replica.port


def test_losses(tmp_path: Path) -> None:
    pair = Pair(tmp_path, RedisServer(tmp_path / "1"))
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: pair.master.close())
        pair.master.start()
        machines = stack.enter_context(linked_machines(tmp_path / "machines", pair.master, 2))
        pair.machines = machines
        ports = [each.port for each in machines]
        chaos = stack.enter_context(Chaos(ports, SEED, TOKEN, lasting=False))
        losses = {
            "everything is deleted": pair.empty,
            "the server comes back empty": pair.restart_empty,
            "keys are evicted": pair.evict,
            "a replica is promoted": lambda: pair.promote(chaos),
        }
        for name, happens in losses.items():
            chaos.disturb({name: happens}, 0.01)
        chaos.disturb(losses, SECONDS / 4)
        chaos.assert_kept(gaps=True)


def test_runs(tmp_path: Path, scripted: ScriptedUpstream) -> None:
    """Those that went on have failed when the server comes back empty; new ones can begin."""
    script = scripted.script()
    script.say("one ")
    with (
        redis_server(tmp_path / "redis") as redis,
        linked_machines(tmp_path, redis, 2, scripted.settings()) as machines,
        start(machines[0].port, script, TOKEN, format="text") as original,
        attach(machines[1].port, run_of(original), "text", headers=TOKEN) as viewer,
    ):
        for stream in (original, viewer):
            take(stream, 1)
        redis.stop()
        script.say("two")
        script.finish()
        for machine in machines:
            refused = ask_start(machine.server, script, TOKEN)
            assert error_of(refused, 503)["code"] == "log_unavailable"
            assert int(refused.headers["retry-after"]) > 0
        redis.restart(data=False)
        for stream in (original, viewer):
            assert [event.event for event in rest(stream)][-1:] == ["failure"]
        for machine in machines:
            machine.wait_until_available()
            gone = ask(machine.server, f"/runs/{run_of(original)}", headers=TOKEN)
            assert error_of(gone, 404)["code"] == "run_not_found"
            other = scripted.script()
            other.say("three")
            other.finish()
            with start(machine.port, other, TOKEN, format="text") as stream:
                assert Decoded("text", rest(stream)).text == "three"
