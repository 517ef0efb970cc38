"""The memory of the server of Redis is full, and it may throw nothing away."""

from __future__ import annotations

import json
from pathlib import Path

from tests.live.kit.connection import fetch
from tests.live.kit.linked_machines import linked_machines
from tests.live.kit.machines import TOKEN
from tests.live.kit.publishing import error_of, post, publish
from tests.live.kit.redis_server import redis_server
from tests.live.kit.run_events import Decoded
from tests.live.kit.runs import ask_start, replay, rest, run_of, start, take
from tests.live.kit.scripted import ScriptedUpstream
from tests.live.kit.subscribers import Subscriber
from tests.live.kit.swarm import Swarm
from tests.live.kit.waiting import until


def test_the_memory_is_full(tmp_path: Path, scripted: ScriptedUpstream, channel: str) -> None:
    """Publishers and who asks for completions get 503 with Retry-After; what goes on goes on."""
    script, other = scripted.script(), scripted.script()
    large = json.dumps({"data": "x" * 200_000}).encode()
    path = f"/channels/{channel}"
    with (
        redis_server(tmp_path / "redis", max_memory=8 << 20) as redis,
        linked_machines(tmp_path, redis, 1, scripted.settings()) as (machine,),
        Swarm(machine.port, [Subscriber(path, headers=TOKEN) for _ in range(3)]) as swarm,
    ):
        swarm.wait_for(lambda each: each.last_id is not None, "knows where it begins")
        script.say("one ")
        with start(machine.port, script, TOKEN, format="text") as stream:
            run, before = run_of(stream), take(stream, 1)
            stored = []

            def full() -> bool:
                answer = post(machine.port, channel, large, headers=TOKEN)
                if answer.status == 201:
                    stored.append(json.loads(answer.body)["id"])
                    return False
                assert error_of(answer, 503)["code"] == "log_unavailable"
                assert int(answer.headers["retry-after"]) > 0
                return True

            until(full, "there is no room")
            assert len(stored) > 10
            # The buffer of a refused request is free again, and a small one would fit into it.
            redis.command("CONFIG", "SET", "maxmemory", 1 << 20)
            refused = ask_start(machine.server, other, TOKEN)
            assert error_of(refused, 503)["code"] in ("log_unavailable", "run_log_full")
            assert int(refused.headers["retry-after"]) > 0
            assert other.count == 0, "nobody pays for what can't be stored"
            assert fetch(machine.port, "/healthz").status == 200
            script.say("two")
            redis.command("CONFIG", "SET", "maxmemory", 0)
            script.finish()
            answer = Decoded("text", [*before, *rest(stream)])
        assert (answer.text, answer.outcome) == ("one two", "finished")
        assert replay(machine.port, run, "text", TOKEN) == answer.events
        stored.append(publish(machine.port, channel, "there is room again", TOKEN))
        swarm.wait_for(lambda each: each.last_id == stored[-1], "has the last event")
        for subscriber in swarm.subscribers:
            assert [each.id for each in subscriber.events] == stored
            assert not subscriber.gaps
            assert subscriber.connected == 1
