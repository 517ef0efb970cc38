"""Clients at work while a test breaks what serves them, and whether all promises were kept.

Publishers publish to several channels with keys, each at one machine until that fails; subscribers
subscribe to some of the channels, break off, and go on at another machine; tales are asked for with
keys, and viewers read them. All record what they get, for `tests.live.kit.histories`.

CHAOS_SECONDS is for how long things go wrong, CHAOS_SEED which of them, and in which order.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence

from tests.live.kit.histories import Published, problems_of_channels, problems_of_runs
from tests.live.kit.links import Link
from tests.live.kit.publishing import Publisher, epoch
from tests.live.kit.recorders import RecordedSubscriber, RecordedViewer
from tests.live.kit.swarm import Swarm
from tests.live.kit.tales import Tales, texts_of
from tests.live.kit.waiting import until

SECONDS = float(os.environ.get("CHAOS_SECONDS", "8"))
SEED = int(os.environ.get("CHAOS_SEED", random.randrange(10**6)))
CHANNELS = ("shop.eu", "shop.us", "news")
#: What subscribers subscribe to, each name or pattern with the channels that it stands for.
SELECTIONS: Sequence[dict[str, Sequence[str]]] = (
    {"shop.eu": ["shop.eu"]},
    {"shop.*": ["shop.eu", "shop.us"]},
    {"**": CHANNELS},
    {"news": ["news"], "shop.us": ["shop.us"]},
)


class Chaos:
    """The clients; their upstream has to be the service's.

    Args:
        ports: those of the machines.
        seed: what is random; threads are not.
        headers: what gives the clients their rights.
        lasting: whether the stores keep what they have; if not, no tales are asked for.
    """

    def __init__(
        self, ports: Sequence[int], seed: int, headers: Mapping[str, str], *, lasting: bool = True
    ) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self._lasting = lasting
        # Publishers and who asks for tales reach the machines over these.
        self._ways = [Link(port) for port in ports]
        self._headers = headers
        self._swarm = Swarm(ports, coming_back=True)
        self._publishers: list[Publisher] = []
        self._subscribers: list[RecordedSubscriber] = []
        self._viewers: list[RecordedViewer] = []
        self._tales: dict[str, str] = {}
        self._names = itertools.count(1)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Chaos:
        print(f"seed {self.seed}")
        self._stack.enter_context(self._swarm)
        ports = [self._stack.enter_context(way).port for way in self._ways]
        choice = random.Random(self.seed)
        name = f"tale-{self.seed}"
        self._asking = Tales(ports, name, self._headers, self._view, choice)
        for n in range(8):
            self._read(event_source=bool(n % 2))
        self._swarm.wait_for(lambda each: each.last_id is not None, "knows where it begins")
        for n, channel in enumerate((*CHANNELS, *CHANNELS)):
            at = n % len(ports)
            publisher = Publisher(
                [*ports[at:], *ports[:at]],
                channel,
                f"publisher-{n}",
                per_second=10,
                batch=(1, 7)[n == 4],
                headers=self._headers,
            )
            self._publishers.append(self._stack.enter_context(publisher))
        if self._lasting:
            self._stack.enter_context(self._asking)
        return self

    def __exit__(self, *raised: object) -> None:
        self._stack.close()

    def _read(self, last_id: str | None = None, *, event_source: bool = False) -> None:
        """One subscriber more, of one of the selections."""
        number = next(self._names)
        subscriber = RecordedSubscriber(
            f"subscriber {number}",
            SELECTIONS[number % len(SELECTIONS)],
            event_source=event_source,
            last_id=last_id,
            breaking=0.02,
            headers=self._headers,
        )
        if last_id == "earliest":
            (first, _), *_ = self._publishers[0].taken
            subscriber.history.start = f"{epoch(first)}-0"
        self._subscribers.append(subscriber)
        self._swarm.add(subscriber)

    def _view(self, tale: str, run: str) -> None:
        """Two viewers of a run that has begun."""
        self._tales[run] = tale
        for n in range(2):
            breaking = (0.0, 0.05)[n]
            viewer = RecordedViewer(
                f"viewer {n} of {tale}", run, breaking=breaking, headers=self._headers
            )
            self._viewers.append(viewer)
            self._swarm.add(viewer)

    def come_and_go(self) -> None:
        """One subscriber leaves for good; others begin, at an event of before and at the first."""
        leaving = self.random.choice([each for each in self._subscribers if each.history.stayed])
        leaving.history.stayed = False
        self._swarm.leave(leaving)
        publisher = self.random.choice(self._publishers)
        self._read(self.random.choice(publisher.taken)[0], event_source=True)
        if self._lasting:
            self._read("earliest")

    def lose_answers(self) -> None:
        """A machine gets what clients ask of it, and they don't get its answers: they ask again."""
        way = self.random.choice(self._ways)
        way.drop(answers_only=True)
        time.sleep(self.random.uniform(0.1, 0.5))
        way.reset()
        way.repair()

    def disturb(self, faults: Mapping[str, Callable[[], None]], seconds: float) -> None:
        """Let things happen, one after the other, for so long, and one at least.

        Between two of them each publisher publishes something, and some answers are lost.
        """
        begin, names = time.monotonic(), list(faults)
        self.let_publish(1)
        happened = False
        while not happened or time.monotonic() - begin < seconds:
            happened = True
            self.come_and_go()
            self.lose_answers()
            self.let_publish(2)
            name = self.random.choice(names)
            print(f"{time.monotonic() - begin:6.2f} s: {name}", flush=True)
            faults[name]()
        self.let_publish(5)

    def let_publish(self, more: int) -> None:
        for publisher in self._publishers:
            publisher.wait_for(more)

    def problems(self) -> list[str]:
        """Stop the publishers, wait until all is quiet, and say what is wrong."""
        if self._lasting:
            self._asking.stop()
        for publisher in self._publishers:
            publisher.stop()
        # What has not come by then is not to come, and the check says what it is.
        with contextlib.suppress(AssertionError):
            until(self._quiet, "all have everything", seconds=30, pause=0.1)
        published = [
            [Published(each.channel, data, event_id) for event_id, data in each.taken]
            for each in self._publishers
        ]
        texts = {run: texts_of(tale) for run, tale in self._tales.items()}
        found = problems_of_channels(published, [each.history for each in self._subscribers])
        found += problems_of_runs(texts, [each.history for each in self._viewers])
        for client in (*self._subscribers, *self._viewers):
            found += [f"{client.summary()}: {problem}" for problem in client.problems]
        return found

    def _quiet(self) -> bool:
        """Whether all runs have ended, and each subscriber has the last events of its channels."""
        last = [each.taken[-1] for each in self._publishers]
        for subscriber in self._subscribers:
            if subscriber.history.stayed:
                wanted = {
                    event
                    for event, publisher in zip(last, self._publishers, strict=True)
                    if publisher.channel in subscriber.history.channels
                }
                if not wanted <= {(each.id, each.data) for each in subscriber.events[-100:]}:
                    return False
        return all(each.ended for each in self._viewers)

    def assert_kept(self, *, gaps: bool = False) -> None:
        """Fail unless all promises were kept.

        Args:
            gaps: whether something has been lost, and must be said to be missing.
        """
        found = self.problems()
        print(self.summary())
        assert found == [], f"seed {self.seed}: {len(found)} problems, the first: {found[:5]}"
        assert bool(self.gaps) == gaps

    @property
    def gaps(self) -> int:
        """How many gap events subscribers got."""
        return sum(len(each.gaps) for each in self._subscribers)

    def summary(self) -> str:
        """What there was, for people."""
        repeated = sum(each.repeated + len(each.refused) for each in self._publishers)
        ends = [each.history.frames[-1].event for each in self._viewers if each.history.frames]
        got = sum(len(each.events) for each in self._subscribers)
        connections = sum(each.connected for each in self._subscribers)
        return (
            f"{sum(len(each.taken) for each in self._publishers)} events, with {repeated} requests "
            f"repeated; {len(self._subscribers)} subscribers got {got} events and {self.gaps} gaps "
            f"over {connections} connections; {len(self._tales)} runs, with "
            f"{len(self._asking.refused)} requests refused; of {len(self._viewers)} viewers "
            f"{ends.count('done')} saw one done, {ends.count('failure')} one that failed"
        )
