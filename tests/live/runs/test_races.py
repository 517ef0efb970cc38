"""Requests with one key in the same moment, on both workers: the upstream is paid once."""

from __future__ import annotations

import contextlib
from collections import Counter
from functools import partial

import pytest

from tests.live.kit.connection import Answer, Connection
from tests.live.kit.events import Sent
from tests.live.kit.publishing import error_of
from tests.live.kit.run_events import text_of
from tests.live.kit.runs import all_at_once, ask_start, replay, rest, run_of, start
from tests.live.kit.scripted import ScriptedAnswer, ScriptedUpstream
from tests.live.kit.servers import Server
from tests.live.kit.stores import on_every_store
from tests.live.kit.workers import connect_to


def key_of(script: ScriptedAnswer) -> dict[str, str]:
    return {"Idempotency-Key": f"key-{script.message}"}


def race(
    server: Server | Connection, script: ScriptedAnswer, content: str = ""
) -> tuple[int, str, bool, list[Sent]]:
    stream = start(server, script, key_of(script), system_prompt=content, format="text")
    if stream.head.status != 200:
        answer = Answer(
            stream.head.status, stream.head.headers, stream.connection.body(stream.head)
        )
        stream.connection.close()
        assert error_of(answer, 409)["code"] == "idempotency_key_reused"
        return answer.status, "", False, []
    replayed = stream.head.headers.get("idempotency-replayed") == "true"
    return 200, run_of(stream), replayed, rest(stream)


@on_every_store
@pytest.mark.parametrize("round", range(12))
def test_racing_requests(runs: Server, scripted: ScriptedUpstream, round: int) -> None:
    """Twenty at once, on both workers: one of them asks the upstream, all get its answer."""
    script = scripted.script()
    script.say(*(f"{n} " for n in range(round * 5)))
    script.finish()
    got = all_at_once(*[partial(race, runs, script)] * 20)
    assert Counter(status for status, *_ in got) == {200: 20}
    assert len({run for _, run, _, _ in got}) == 1
    assert sorted(replayed for _, _, replayed, _ in got) == [False] + [True] * 19
    expected = replay(runs, got[0][1], "text")
    assert text_of("text", expected) == "".join(f"{n} " for n in range(round * 5))
    assert all(events == expected for *_, events in got)
    assert script.count == 1


@on_every_store
def test_racing_on_both_workers(runs: Server, scripted: ScriptedUpstream) -> None:
    """Five on each, accepted before the race begins."""
    for _ in range(4):
        script = scripted.script()
        script.say("x")
        script.finish()
        with contextlib.ExitStack() as stack:
            connections = [
                stack.enter_context(connect_to(runs, worker))
                for worker in runs.workers()
                for _ in range(5)
            ]
            got = all_at_once(*(partial(race, each, script) for each in connections))
        assert Counter(status for status, *_ in got) == {200: 10}
        assert len({run for _, run, _, _ in got}) == 1
        assert script.count == 1


@on_every_store
def test_racing_requests_of_a_run_that_fails(runs: Server, scripted: ScriptedUpstream) -> None:
    """What is final is the answer to all of them; see the tests of idempotency for the rest."""
    for _ in range(4):
        script = scripted.script()
        script.answer(422, b'{"error": {"message": "No.", "type": "invalid_request_error"}}')
        ask_it = partial(ask_start, runs, script, key_of(script))
        answers: list[Answer] = all_at_once(*[ask_it] * 10)
        assert {answer.status for answer in answers} == {422}
        assert len({run_of(answer) for answer in answers}) == 1
        assert len({answer.body for answer in answers}) == 1
        assert script.count == 1


@on_every_store
def test_racing_requests_with_other_content(runs: Server, scripted: ScriptedUpstream) -> None:
    """One of the contents wins; requests with the other get 409."""
    for _ in range(4):
        script = scripted.script()
        script.say("x")
        script.finish()
        got = all_at_once(*(partial(race, runs, script, content) for content in ("a", "b") * 6))
        assert Counter(status for status, *_ in got) == {200: 6, 409: 6}
        assert len({run for status, run, *_ in got if status == 200}) == 1
        assert script.count == 1
