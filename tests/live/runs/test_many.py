"""A hundred runs at once, read by clients that come and go."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.live.kit.aimock import Aimock
from tests.live.kit.run_events import joined
from tests.live.kit.runs import run_service, start_path
from tests.live.kit.servers import Server
from tests.live.kit.stores import Store, on_every_store
from tests.live.kit.subscribers import Subscriber
from tests.live.kit.swarm import Swarm

COUNT = 100


@pytest.fixture(scope="module")
def relay(
    tmp_path_factory: pytest.TempPathFactory, aimock: Aimock, store: Store
) -> Iterator[Server]:
    """Two workers, with heartbeats between any two words."""
    directory = tmp_path_factory.mktemp("relay")
    settings = {"SSEFLASK_HEARTBEAT": "0.2", **store(directory)}
    with run_service(directory, aimock, settings=settings) as started:
        yield started


class Reader(Subscriber):
    """A client that breaks off at any byte and comes back. A run's terminal event is no failure of
    the channel to it, but the end."""

    def __init__(self, tag: str, format: str, path: str, breaking: float = 0.1) -> None:
        super().__init__(path, event_source=True, breaking=breaking)
        self.tag = tag
        self.format = format

    @property
    def run(self) -> str:
        return (self.last_id or "").partition(".")[0]

    @property
    def sent_away(self) -> bool:
        """It has come back with the terminal event's id."""
        return 204 in self.refused

    def text(self) -> str:
        said = [event.data for event in self.events if event.event == "message"]
        if self.format == "text":
            return "".join(said)
        chunks = [json.loads(data) for data in said if data != "[DONE]"]
        choices = [choice for chunk in chunks for choice in chunk["choices"]]
        return joined("".join(choice["delta"].get("content") or "" for choice in choices))

    def ends(self) -> int:
        if self.format == "text":
            return sum(event.event == "done" for event in self.events)
        return sum(event.data == "[DONE]" for event in self.events)


@on_every_store
def test_a_hundred_runs(relay: Server, upstream: Aimock, tag: str) -> None:
    """Each is read by the one who started it and by one who joins later, both with interruptions:
    everybody has each run's text whole, and the upstream is called once for each run.

    The starters have a key, as one who is cut off before its first byte has no id yet.
    """
    tags = [f"{tag}-{n}" for n in range(COUNT)]
    served, destroyed = upstream.served(), upstream.destroyed()
    starters = [
        Reader(
            each, format, start_path(f"tale #{each}", format=format, idempotency_key=f"key-{each}")
        )
        for each, format in zip(tags, ["text", "chunks"] * (COUNT // 2), strict=True)
    ]
    with Swarm(relay.port, starters) as swarm:
        swarm.wait_for(lambda each: each.last_id is not None, "its run has begun")
        runs = [starter.run for starter in starters]
        assert len(set(runs)) == COUNT
        viewers = [
            Reader(each, format, f"/runs/{run}?format={format}", breaking=0.2)
            for each, run, format in zip(tags, runs, ["chunks", "text"] * (COUNT // 2), strict=True)
        ]
        swarm.add(*viewers)
        readers = [*starters, *viewers]
        swarm.wait_for(lambda each: 204 in each.refused, "it has come to the end")
    for reader in readers:
        assert not reader.problems, reader.summary()
        assert not reader.failures, reader.summary()
        assert reader.refused == [204], reader.summary()
        assert reader.ends() == 1, reader.summary()
        ids = [event.id for event in reader.events]
        assert len(set(ids)) == len(ids), reader.summary()
        assert reader.text() == upstream.tale_of(reader.tag), reader.summary()
    assert [starter.run for starter in starters] == runs
    assert sum(reader.broken_off for reader in readers) > COUNT, "they did come and go"
    asked = upstream.last_messages()
    assert [asked.count(f"tale #{each}") for each in tags] == [1] * COUNT
    assert upstream.served() == served + COUNT
    assert upstream.destroyed() == destroyed
