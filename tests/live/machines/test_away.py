"""The server of Redis is gone for some seconds while hundreds listen and others publish.

AWAY_SECONDS is for how long, AWAY_SUBSCRIBERS how many listen: 10 and 1,000 make the figure.
"""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.live.kit.linked_machines import LinkedMachine
from tests.live.kit.machines import TOKEN
from tests.live.kit.publishing import Publisher
from tests.live.kit.redis_server import RedisServer
from tests.live.kit.subscribers import Received, Subscriber
from tests.live.kit.swarm import Swarm
from tests.live.kit.waiting import until

SECONDS = float(os.environ.get("AWAY_SECONDS", "3"))
SUBSCRIBERS = int(os.environ.get("AWAY_SUBSCRIBERS", "200"))
#: Within so many seconds of its return everybody gets what is published then.
LIMIT = 2.0


@pytest.mark.parametrize("how", ["killed", "frozen", "cut off", "out of reach"])
def test_it_is_away(trio: list[LinkedMachine], redis: RedisServer, channel: str, how: str) -> None:
    """Nobody's connection ends; what was acknowledged comes once, in order."""
    ports = [each.port for each in trio]
    links = [each.link for each in trio]
    path = f"/channels/{channel}"
    crowd = [Subscriber(path, event_source=bool(n % 2), headers=TOKEN) for n in range(SUBSCRIBERS)]
    with Swarm(ports, crowd) as swarm:
        swarm.wait_for(lambda each: each.last_id is not None, "knows where it begins")
        with Publisher(ports, channel, "event", per_second=50, headers=TOKEN) as publisher:
            publisher.wait_for(25)
            if how == "killed":
                redis.stop(signal.SIGKILL)
            elif how == "frozen":
                redis.freeze()
            else:
                for link in links:
                    (link.cut if how == "cut off" else link.drop)()
            time.sleep(SECONDS)
            before = len(publisher.taken)
            if how == "killed":
                redis.start()
            else:
                redis.thaw()
                for link in links:
                    link.repair()
            back_at = time.monotonic()
            until(lambda: len(publisher.taken) > before, "something is published")
            published_at = time.monotonic()
            wanted = len(publisher.taken)
            swarm.wait_for(lambda each: len(each.events) >= wanted, "has it")
            got_at = time.monotonic()
            publisher.wait_for(25)
        stored = [Received(event_id, "message", data) for event_id, data in publisher.taken]
        swarm.wait_for(lambda each: each.last_id == stored[-1].id, "has the last event")
        print(
            f"{how} for {SECONDS:g} s, {SUBSCRIBERS} subscribers: published after "
            f"{published_at - back_at:.2f} s, delivered to all after {got_at - back_at:.2f} s; "
            f"{len(publisher.refused)} publications refused, {publisher.repeated} broken off"
        )
        for subscriber in swarm.subscribers:
            assert subscriber.events == stored, subscriber.summary()
            assert not subscriber.gaps, subscriber.summary()
            assert not subscriber.problems, subscriber.summary()
            assert subscriber.connected == 1, subscriber.summary()
        assert got_at - back_at < LIMIT
