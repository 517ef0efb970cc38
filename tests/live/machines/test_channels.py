"""Channels across machines: one order for all, one count, one place for keys."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from tests.live.kit.clients import open_stream
from tests.live.kit.connection import fetch
from tests.live.kit.linked_machines import LinkedMachine
from tests.live.kit.machines import TOKEN
from tests.live.kit.publishing import Publisher, post, publish
from tests.live.kit.redis_server import RedisServer
from tests.live.kit.runs import all_at_once
from tests.live.kit.servers import environment
from tests.live.kit.subscribers import Subscriber
from tests.live.kit.swarm import Swarm
from tests.live.kit.waiting import until


def crowd(path: str, count: int) -> list[Subscriber]:
    return [Subscriber(path, event_source=bool(n % 2), headers=TOKEN) for n in range(count)]


def test_one_order(trio: list[LinkedMachine], channel: str) -> None:
    """Each machine has a publisher of its own, each subscriber comes to one of them at random."""
    ports = [each.port for each in trio]
    with Swarm(ports, crowd(f"/channels/{channel}", 30)) as swarm:
        swarm.wait_for(lambda each: each.last_id is not None, "knows where it begins")
        with contextlib.ExitStack() as stack:
            publishers = [
                stack.enter_context(Publisher(port, channel, f"from-{port}", headers=TOKEN))
                for port in ports
            ]
            for publisher in publishers:
                publisher.wait_for(100)
        stored = sorted(
            (each for one in publishers for each in one.taken), key=lambda event: place(event[0])
        )
        swarm.wait_for(lambda each: each.last_id == stored[-1][0], "has the last event")
        for subscriber in swarm.subscribers:
            assert [(each.id, each.data) for each in subscriber.events] == stored
            assert not subscriber.gaps
            assert not subscriber.problems


def place(event_id: str) -> int:
    return int(event_id.rpartition("-")[2])


def test_what_is_published_meanwhile(trio: list[LinkedMachine], channel: str) -> None:
    """A client goes on at another machine, each time with the next event."""
    last = publish(trio[0].port, channel, "first", TOKEN)
    for n in range(9):
        sent = publish(trio[n % 2].port, channel, f"event {n}", TOKEN)
        path = f"/channels/{channel}"
        headers = {**TOKEN, "Last-Event-ID": last}
        with open_stream(trio[n % 3].port, path, headers=headers) as stream:
            event = stream.next()
        assert (event.id, event.data) == (sent, f"event {n}")
        last = sent


def test_a_repeated_request_at_all_machines_at_once(
    trio: list[LinkedMachine], channel: str
) -> None:
    first = publish(trio[0].port, channel, "first", TOKEN)
    for n in range(10):
        headers = {**TOKEN, "Idempotency-Key": f"key-{n}"}
        body = b'{"data": "%d"}' % n
        jobs = [partial(post, each.port, channel, body, headers=headers) for each in (*trio, *trio)]
        answers = all_at_once(*jobs)
        assert [answer.status for answer in answers] == [201] * 6
        assert len({answer.body for answer in answers}) == 1
        replayed = ["idempotency-replayed" in answer.headers for answer in answers]
        assert replayed.count(False) == 1
    other = post(trio[1].port, channel, b'{"data": "other"}', headers=headers)
    assert other.status == 409
    headers = {**TOKEN, "Last-Event-ID": first}
    with open_stream(trio[2].port, f"/channels/{channel}", headers=headers) as stream:
        assert stream.data(10) == [str(n) for n in range(10)]


def script(redis: RedisServer, code: str) -> str:
    """What a separate program prints that knows the server only."""
    program = f"""
import sys
from flask import Flask
from sseflask import SSE
app = Flask("script")
app.config["SSEFLASK_STORE"] = sys.argv[1]
sse = SSE(app)
{code}
"""
    command = [sys.executable, "-W", "error", "-c", program, redis.url]
    return subprocess.run(
        command, env=environment(), stdout=subprocess.PIPE, text=True, check=True, timeout=60
    ).stdout


def test_a_script_publishes_counts_and_closes(
    trio: list[LinkedMachine], redis: RedisServer
) -> None:
    """It is none of the machines; one that is killed has no subscribers."""
    one, two, _ = trio
    with contextlib.ExitStack() as stack:
        swarms = [
            stack.enter_context(
                Swarm(each.port, [*crowd("/channels/user.0", 4), *crowd("/channels/user.1", 6)])
            )
            for each in trio
        ]
        for swarm in swarms:
            swarm.wait_for(lambda each: each.last_id is not None, "knows where it begins")
            swarm.coming_back = False
        counts = "print(sse.subscribers('user.*'), sse.subscribers('user.1'))"
        until(lambda: script(redis, counts) == "30 18\n", "all are counted")
        one.kill()
        until(lambda: script(redis, counts) == "20 12\n", "a dead machine has none")
        one.launch()
        said = script(
            redis,
            "print(sse.publish('user.0', 'bye')); sse.close('user.0'); sse.publish('user.0', 1)",
        )
        for swarm in swarms[1:]:
            closed = [each for each in swarm.subscribers if each.path.endswith(".0")]
            swarm.wait_for(
                lambda each: each.proper_ends == each.path.endswith(".0"), "they have ended"
            )
            for each in closed:
                assert [event.id for event in each.events] == said.split(), each.summary()
                assert [500 <= int(retry) <= 3000 for retry in each.retries] == [True]
        assert script(redis, counts) == "12 12\n"
        sent = publish(two.port, "user.1", "still there", TOKEN)
        for swarm in swarms[1:]:
            swarm.wait_for(
                lambda each: each.last_id == sent or each.path.endswith(".0"), "they have gone on"
            )
    one.wait_until_ready()


def test_a_machine_that_can_not_reach_the_server(trio: list[LinkedMachine], channel: str) -> None:
    """It says so at once, and its subscribers stay; the others don't notice."""
    one, two, _ = trio
    first = publish(one.port, channel, "first", TOKEN)
    with Swarm(one.port, crowd(f"/channels/{channel}", 5)) as swarm, contextlib.ExitStack() as back:
        swarm.wait_for(lambda each: each.last_id is not None, "knows where it begins")
        back.callback(one.link.repair)
        one.link.cut()

        def refused() -> bool:
            answer = post(one.port, channel, b"x", None, TOKEN)
            assert answer.status in (201, 503)
            if answer.status == 503:
                assert int(answer.headers["retry-after"]) > 0
            return answer.status == 503

        until(refused, "it refuses to publish")
        assert one.stores() == ["unavailable"] * 2
        assert two.stores() == ["available"] * 2
        sent = [publish(two.port, channel, f"{n}", TOKEN) for n in range(3)]
        one.link.repair()
        one.wait_until_available()
        last = publish(one.port, channel, "last", TOKEN)
        swarm.wait_for(lambda each: each.last_id == last, "has the last event")
        for subscriber in swarm.subscribers:
            ids = [each.id for each in subscriber.events]
            assert ids[-4:] == [*sent, last]
            assert len(ids) == len(set(ids))
            assert first not in ids
            assert not subscriber.gaps
            assert subscriber.connected == 1, "its connection has stayed"


def test_a_slow_server(trio: list[LinkedMachine], channel: str) -> None:
    """Two seconds for a command: publishing takes that long, and nobody else waits."""
    one, *_ = trio
    with Swarm(one.port, crowd(f"/channels/{channel}", 5)) as swarm, contextlib.ExitStack() as back:
        swarm.wait_for(lambda each: each.last_id is not None, "knows where it begins")
        back.callback(one.link.repair)
        one.link.slow_down(1.0)
        with ThreadPoolExecutor(4) as pool:
            asked_at = time.monotonic()
            sent = [pool.submit(publish, one.port, channel, f"{n}", TOKEN) for n in range(4)]
            while not all(each.done() for each in sent):
                at = time.monotonic()
                assert fetch(one.port, "/healthz").status == 200
                assert time.monotonic() - at < 1, "the worker stands still"
                time.sleep(0.05)
            assert time.monotonic() - asked_at >= 2, "the link is slow"
        ids = sorted((each.result() for each in sent), key=place)
        swarm.wait_for(lambda each: each.last_id == ids[-1], "has the last event")
        for subscriber in swarm.subscribers:
            assert [each.id for each in subscriber.events] == ids
            assert subscriber.connected == 1
