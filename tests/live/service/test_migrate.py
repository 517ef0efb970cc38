"""A service moves from files to a Redis server and back: nobody who comes back notices."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.live.kit.clients import Stream, open_stream
from tests.live.kit.events import Sent
from tests.live.kit.publishing import epoch, number, publish
from tests.live.kit.run_events import after
from tests.live.kit.runs import attach, replay, rest, run_of, run_service, start
from tests.live.kit.scripted import ScriptedAnswer, ScriptedUpstream
from tests.live.kit.servers import ROOT, Server, environment
from tests.live.kit.services import logs
from tests.live.kit.stores import on_redis

SECONDS = 60.0


def migrate(*arguments: str, **settings: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "sseflask", "migrate", *arguments],
        cwd=ROOT,
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def come_back(server: Server, channel: str, last: str) -> Stream:
    return open_stream(server, f"/channels/{channel}.*", headers={"Last-Event-ID": last})


def next_of(stream: Stream, amount: int) -> list[tuple[str | None, str | None]]:
    return [(event.id, event.data) for event in (stream.next() for _ in range(amount))]


def test_there_and_back(
    tmp_path: Path, scripted: ScriptedUpstream, script: ScriptedAnswer, channel: str
) -> None:
    on_files, on_server = logs(tmp_path), on_redis(tmp_path)
    place = on_server["REDIS_URL"]
    back = {
        "SSEFLASK_CHANNEL_LOG": str(tmp_path / "back" / "channels.sqlite3"),
        "SSEFLASK_RUN_LOG": str(tmp_path / "back" / "runs.sqlite3"),
    }
    key = {"Idempotency-Key": f"key-{channel}"}
    script.say("one ", "two ", "three")
    script.finish()

    with run_service(tmp_path, scripted, workers=1, settings=on_files) as server:
        ids = [publish(server, f"{channel}.{each % 3}", each) for each in range(9)]
        ids.append(publish(server, f"{channel}.0", 9, key))
        with come_back(server, channel, ids[2]) as subscriber:
            assert next_of(subscriber, 2) == [(ids[3], "3"), (ids[4], "4")]
        with start(server, script, key) as stream:
            run = run_of(stream)
            seen = [stream.next()]
        events = replay(server, run, "chunks")

    def check(settings: Mapping[str, str]) -> None:
        """What clients get who come back with what they had."""
        with run_service(tmp_path, scripted, workers=1, settings=settings) as server:
            with come_back(server, channel, ids[4]) as subscriber:
                missed = next_of(subscriber, len(ids) - 5)
                assert missed == [(ids[each], str(each)) for each in range(5, len(ids))]
                assert publish(server, f"{channel}.0", 9, key) == ids[9]
                ids.append(publish(server, f"{channel}.1", len(ids)))
                assert next_of(subscriber, 1) == [(ids[-1], str(len(ids) - 1))]
            assert (epoch(ids[-1]), number(ids[-1])) == (epoch(ids[-2]), number(ids[-2]) + 1)
            viewer: list[Sent] = rest(attach(server, run, "chunks", seen[-1].id))
            assert viewer == after(run, events, 1)
            assert replay(server, run, "chunks") == events
            with start(server, script, key) as again:
                assert again.head.headers["idempotency-replayed"] == "true"
                assert (run_of(again), rest(again)) == (run, events)

    said = migrate(**on_files, REDIS_URL=place)
    assert said.startswith("moved 10 events of 3 channels, 1 key of publishers, 1 completion, ")
    check(on_server)
    said = migrate("--from", "redis", "--to", str(tmp_path / "back"), REDIS_URL=place)
    assert said.startswith("moved 11 events of 3 channels, 1 key of publishers, 1 completion, ")
    check(back)
    assert script.count == 1
