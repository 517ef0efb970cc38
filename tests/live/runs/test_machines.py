"""Machines that share only a Redis server: begun on one, viewed on another, stopped anywhere."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import redis_server
from tests.live.kit.publishing import error_of
from tests.live.kit.run_events import FORMATS, Decoded, end_of, expected_end, text_of
from tests.live.kit.runs import (
    ask,
    ask_start,
    attach,
    read,
    replay,
    rest,
    run_of,
    run_service,
    start,
    stop,
)
from tests.live.kit.scripted import ScriptedAnswer, ScriptedUpstream
from tests.live.kit.servers import Server
from tests.live.kit.waiting import until

Machines = tuple[Server, Server, Server]

#: Within this time the runs of a machine that has died are ended by another one.
LIMIT = 10.0

#: The server keeps what it was given when it is killed.
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


@contextlib.contextmanager
def machines(
    directory: Path, upstream: ScriptedUpstream, url: str, amount: int
) -> Iterator[list[Server]]:
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(
                run_service(
                    directory / f"machine-{number}",
                    upstream,
                    workers=1,
                    settings={"SSEFLASK_RUN_LOG": url},
                )
            )
            for number in range(amount)
        ]


@pytest.fixture(scope="module")
def three(
    tmp_path_factory: pytest.TempPathFactory, scripted: ScriptedUpstream
) -> Iterator[Machines]:
    directory, url = tmp_path_factory.mktemp("machines"), redis_server.shared(kind()).place()
    with machines(directory, scripted, url, 3) as (first, second, third):
        yield first, second, third


def kind() -> str:
    return next(iter(redis_server.programs()))


def test_a_run_is_viewed_stopped_and_read_on_any_machine(
    three: Machines, script: ScriptedAnswer
) -> None:
    first, second, third = three
    script.say("one ")
    with start(first, script, format="text") as starter:
        run = run_of(starter)
        assert starter.next().data == "one "
        viewers = {format: attach(second, run, format) for format in FORMATS}
        with contextlib.ExitStack() as stack:
            for viewer in viewers.values():
                stack.enter_context(viewer)
            first_events = {format: [viewer.next()] for format, viewer in viewers.items()}
            script.say("two")
            assert starter.next().data == "two"
            assert stop(third, run) == "stopped"
            script.wait_until_left()
            events = {
                format: first_events[format] + rest(viewer) for format, viewer in viewers.items()
            }
        rest(starter)
    for format in FORMATS:
        assert text_of(format, events[format]) == "one two"
        assert end_of(format, events[format]) == expected_end(format, "stopped")
        for machine in three:
            assert replay(machine, run, format) == events[format]
    assert stop(first, run) == "stopped"
    assert script.count == 1


def test_a_repetition_on_another_machine_finds_the_run(
    three: Machines, script: ScriptedAnswer
) -> None:
    first, second, third = three
    key = {"Idempotency-Key": script.message}
    script.say("one ")
    with (
        start(first, script, key, format="text") as starter,
        start(second, script, key, format="text") as again,
    ):
        assert run_of(starter) == run_of(again)
        script.say("two")
        script.finish()
        assert rest(starter) == rest(again)
    refused = ask_start(third, f"{script.message} other", key, format="text")
    assert error_of(refused, 409)["code"] == "idempotency_key_reused"
    assert script.count == 1


def test_a_run_goes_on_while_a_client_is_on_any_machine(
    three: Machines, script: ScriptedAnswer
) -> None:
    """Only when the last one has left, nobody needs it any more."""
    first, second, _ = three
    script.say("one ")
    with start(first, script, format="text") as starter:
        run = run_of(starter)
        starter.next()
        viewer = attach(second, run, "text")
    with viewer:
        viewer.next()
        script.say("two")
        assert viewer.next().data == "two"
        assert not script.left()
        script.finish()
        assert Decoded("text", rest(viewer)).outcome == "finished"


def test_a_machine_is_killed(tmp_path: Path, scripted: ScriptedUpstream) -> None:
    """Viewers elsewhere are told within seconds, and read the same ever after."""
    script = scripted.script()
    script.say("one ")
    url = redis_server.shared(kind()).place()
    with machines(tmp_path, scripted, url, 2) as (first, second):
        with start(first, script, format="text") as starter:
            run = run_of(starter)
            starter.next()
            with attach(second, run, "text") as viewer:
                assert viewer.next().data == "one "
                killed_at = time.monotonic()
                for each in first.members():
                    each.kill()
                answer = read(viewer, "text")
                assert time.monotonic() - killed_at < LIMIT
        assert answer.outcome == "failed"
        assert answer.error["code"] == "interrupted"
        again = replay(second, run, "text")
        assert (text_of("text", again), end_of("text", again)) == (
            "one ",
            end_of("text", answer.events),
        )
        script.finish()


@pytest.mark.waits_long
@pytest.mark.parametrize("options", [DURABLE, ()])
def test_the_server_is_away_for_a_while(
    tmp_path: Path, scripted: ScriptedUpstream, options: tuple[str, ...]
) -> None:
    """New runs are refused meanwhile. With its data a run loses nothing; without, it fails."""
    script = scripted.script()
    script.say("one ")
    with (
        redis_server.running(redis_server.redis(), *options) as server,
        machines(tmp_path, scripted, server.place(), 2) as (first, second),
        start(first, script, format="text") as starter,
        attach(second, run_of(starter), "text") as viewer,
    ):
        assert starter.next().data == viewer.next().data == "one "
        server.stop()
        script.say("two")
        script.finish()
        for machine in (first, second):
            refusal = ask_start(machine, script, format="text")
            error_of(refusal, 503)
            assert int(refusal.headers["retry-after"]) >= 0
            assert ask(machine, "/healthz").status == 200
        script.wait_for_requests()
        back = threading.Timer(1.0, server.start)  # how long it is away is what this is about
        back.start()
        got = [rest(stream) for stream in (starter, viewer)]
        back.join()
        if options:
            for events in got:
                assert (text_of("text", events), end_of("text", events)) == ("two", "stop")
        else:
            # This failure is stored nowhere, so it has no id.
            assert [events[-1].event for events in got] == ["failure", "failure"]
        healthy = scripted.script()
        healthy.say("three")
        healthy.finish()

        def goes_well(machine: Server) -> bool:
            stream = start(machine, healthy, format="text")
            with stream:
                return stream.head.status == 200 and text_of("text", rest(stream)) == "three"

        for machine in (first, second):
            until(lambda machine=machine: goes_well(machine), "runs go well again")  # type: ignore[misc]  # mypy knows no default of a lambda
