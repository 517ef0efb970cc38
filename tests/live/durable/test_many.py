"""Two hundred runs, six hundred readers that come and go, workers killed at random."""

from __future__ import annotations

import random
import time

import pytest

from tests.live.durable.test_death import resumable
from tests.live.kit.chaos import SEED
from tests.live.kit.durable import Place, kill, texts
from tests.live.kit.subscribers import Subscriber
from tests.live.kit.swarm import Swarm

RUNS, READERS, ITEMS, KILLS = 200, 3, 50, 3


class Reader(Subscriber):
    """A client that breaks off at any byte, and comes back until nothing is left."""

    def __init__(self, run: str, tag: str, breaking: float) -> None:
        super().__init__(f"/attach/{run}", event_source=True, breaking=breaking)
        self.run = run
        self.tag = tag

    @property
    def items(self) -> list[str]:
        return [event.data for event in self.events if event.event == "message"]

    @property
    def ends(self) -> list[str]:
        """How often it was told the end, and which: the failures of a run, not of a connection."""
        done = ["finished" for event in self.events if event.event == "done"]
        return done + [failure["error"]["code"] for failure in self.failures]

    def assert_right(self) -> None:
        assert not self.problems, self.summary()
        assert len(self.ends) == 1, self.summary()
        assert self.items == texts(self.tag, len(self.items)), self.summary()
        ids = [event.id for event in self.events]
        assert len(set(ids)) == len(ids), self.summary()


@pytest.mark.waits_long
@pytest.mark.parametrize("place", ["gunicorn-worker", "gunicorn-worker redis"], indirect=True)
def test_many(place: Place, tag: str) -> None:
    """Each reader's items are the generator's, each once, in order, with exactly one end."""
    chance = random.Random(SEED)
    print(f"CHAOS_SEED={SEED}")
    names: dict[str, str] = {}
    resumable_runs = set()
    for n in range(RUNS):
        name, asked = resumable(f"{tag}-{n}", ITEMS, gated=False)
        more = {"resume": "again"} if n % 2 else {}
        run = place.start("numbers", name, interval=0.2, **asked, **more)
        names[run] = name
        resumable_runs |= {run} if more else set()
    assert len(names) == RUNS
    readers = [
        Reader(run, name, chance.choice([0, 0.05, 0.3]))
        for run, name in names.items()
        for _ in range(READERS)
    ]
    with Swarm(place.server.port, readers) as swarm:
        swarm.wait_for(lambda each: each.connected > 0, "it has been served")
        endless = place.start("endless", f"{tag}-endless", interval=0.2)
        kill(place.writer(f"{tag}-endless"))  # others may have ended already
        place.wait_until_whole()
        for _ in range(KILLS - 1):
            time.sleep(chance.uniform(0.2, 1.5))  # at random moments: nothing is waited for
            kill(chance.choice(place.server.workers()))
            place.wait_until_whole()
        swarm.wait_for(lambda each: 204 in each.refused, "it has come to the end", seconds=90)
    by_run: dict[str, set[tuple[tuple[str, ...], tuple[str, ...]]]] = {}
    for reader in readers:
        reader.assert_right()
        by_run.setdefault(reader.run, set()).add((tuple(reader.items), tuple(reader.ends)))
    log = place.server.log()
    for run, seen in by_run.items():
        ((items, (end,)),) = seen  # all readers have seen the same
        assert end in ("finished", "interrupted"), (run, end)
        if end == "finished":
            assert len(items) == ITEMS
        taken_over = len(place.marks(f"{names[run]}.resume"))
        assert taken_over <= KILLS
        if run in resumable_runs and end == "interrupted":
            # Who goes on with it may be killed before it calls the function.
            inherited = f"run {run}: another worker is gone, and this one goes on with it"
            assert taken_over or inherited in log, "nobody has gone on with it"
    place.wait_for_state(endless, "interrupted")
    assert sum(reader.broken_off for reader in readers) > RUNS, "they did come and go"
