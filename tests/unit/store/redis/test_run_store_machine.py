"""The contract's state machine on a server that loses connections, scripts and lists meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import initialize, rule

from sseflask.store.redis.run_store import RedisRunStore
from tests import redis_server, state_machines
from tests.contract.run_stores import Place
from tests.contract.test_run_store_machine import Machine
from tests.unit.store.redis.run_process import key

FAULTS = ["connections", "scripts", "processes", "running", "dead", "ended", "", "inbox"]


class FaultyMachine(Machine):
    """Two stores, and what becomes of their server."""

    @initialize()
    def find_server(self) -> None:
        self.client = self.stack.enter_context(redis_server.shared(self.kind).client())

    @rule(fault=st.sampled_from(FAULTS), which=st.integers(0, 1))
    def fault(self, fault: str, which: int) -> None:
        url = self.place.address
        if fault == "connections":
            self.client.execute_command("CLIENT KILL TYPE normal")
        elif fault == "scripts":
            self.client.script_flush()
        elif fault == "inbox":
            store = self.store(which)
            assert isinstance(store, RedisRunStore)
            self.client.delete(key(url, "inbox", store._scripts.token))
        else:
            self.client.delete(key(url, *filter(None, [fault])))

    kind: str


@contextmanager
def _place(kind: str) -> Iterator[Place]:
    def never(_store: object) -> object:
        raise AssertionError("nobody stands still")

    yield Place(redis_server.shared(kind).place(), True, never)  # type: ignore[arg-type]  # it is not called


@pytest.mark.parametrize("kind", redis_server.programs())
def test_nothing_is_lost_by_what_passes(kind: str) -> None:
    places = staticmethod(lambda: _place(kind))
    state_machines.check(FaultyMachine, examples=20, steps=30, places=places, kind=kind)
