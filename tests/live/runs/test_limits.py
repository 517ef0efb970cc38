"""What one subject may use up: the size of a prompt, requests a minute, runs at once."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.live.kit.clients import Stream, open_stream
from tests.live.kit.publishing import error_of
from tests.live.kit.run_events import end_of
from tests.live.kit.runs import (
    JSON,
    START,
    ask,
    ask_start,
    attach,
    bearer,
    path_of,
    rest,
    run_of,
    run_service,
    start,
    stop,
)
from tests.live.kit.scripted import ScriptedAnswer, ScriptedUpstream
from tests.live.kit.servers import Server
from tests.live.kit.stores import Store, on_every_store
from tests.live.kit.waiting import until
from tests.live.kit.workers import connect_to

CHAT = "/v1/chat/completions"
PROMPT = 2000
RUNS = 3
PER_MINUTE = 20

pytestmark = on_every_store


@pytest.fixture(scope="module")
def limited(
    tmp_path_factory: pytest.TempPathFactory, scripted: ScriptedUpstream, store: Store
) -> Iterator[Server]:
    """Two workers; each test is a subject of its own."""
    directory = tmp_path_factory.mktemp("limited")
    settings = {
        **store(directory),
        "SSEFLASK_MAX_PROMPT": str(PROMPT),
        "SSEFLASK_MAX_RUNS": str(RUNS),
        "SSEFLASK_RATE_LIMIT": f"{PER_MINUTE}/minute",
    }
    with run_service(directory, scripted, settings=settings) as server:
        yield server


@pytest.fixture
def subject(tag: str) -> dict[str, str]:
    return bearer(tag)


def chat_body(script: ScriptedAnswer, filling: str = "", **fields: Any) -> bytes:
    messages = [{"role": "user", "content": script.message + filling}]
    return json.dumps({"model": "m", "messages": messages, **fields}).encode()


TOO_LONG: dict[str, dict[str, Any]] = {
    "user_message": {"user_message": "x" * (PROMPT + 1)},
    "bytes, not characters": {"user_message": "你" * (PROMPT // 3 + 1)},
    "system_prompt": {"system_prompt": "x" * (PROMPT + 1)},
    "messages": {"messages": [{"role": "user", "content": "x" * 500}] * 4},
}


@pytest.mark.parametrize("what", TOO_LONG)
def test_too_long_a_prompt(
    limited: Server, script: ScriptedAnswer, subject: dict[str, str], what: str
) -> None:
    answer = ask_start(limited, script, subject, **TOO_LONG[what])
    assert error_of(answer, 413)["code"] == "prompt_too_long"
    assert script.count == 0


@pytest.mark.parametrize("how", ["query", "form"])
def test_too_long_a_prompt_elsewhere(
    limited: Server, script: ScriptedAnswer, subject: dict[str, str], how: str
) -> None:
    path = path_of(START, user_message=script.message + "x" * PROMPT)
    if how == "query":
        answer = ask(limited, path, headers=subject)
    else:
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = ask(limited, START, "POST", {**subject, **kind}, path.partition("?")[2].encode())
    assert error_of(answer, 413)["code"] == "prompt_too_long"
    assert script.count == 0


@pytest.mark.parametrize("route", [CHAT, "/v1/responses"])
def test_too_long_a_prompt_for_openais_endpoints(
    limited: Server, script: ScriptedAnswer, subject: dict[str, str], route: str
) -> None:
    body = chat_body(script, "x" * PROMPT, input="x" * PROMPT)
    answer = ask(limited, route, "POST", {**JSON, **subject}, body)
    assert error_of(answer, 413)["code"] == "prompt_too_long"
    assert script.count == 0


def test_a_prompt_that_just_fits(
    limited: Server, script: ScriptedAnswer, subject: dict[str, str]
) -> None:
    script.say("x")
    script.finish()
    message = script.message + "x" * (PROMPT - 300)
    stream = start(limited, script, subject, messages=[{"role": "user", "content": message}])
    assert stream.head.status == 200
    rest(stream)
    assert script.count == 1


def refusal(answer_of: Stream) -> dict[str, Any]:
    """The error of a start that was refused; closes it."""
    with answer_of as stream:
        assert stream.head.status == 429, stream.head
        assert int(stream.head.headers["retry-after"]) >= 1
        said = json.loads(stream.connection.body(stream.head))
        assert set(said) == {"error"}
        assert set(said["error"]) == {"message", "type", "param", "code"}
        error: dict[str, Any] = said["error"]
        return error


def test_running_at_once(
    limited: Server,
    scripted: ScriptedUpstream,
    script: ScriptedAnswer,
    subject: dict[str, str],
    tag: str,
) -> None:
    """Counted over both workers; attaching and repeating are no runs; the end of one is room."""
    script.say("one")
    workers = limited.workers()
    key = {"Idempotency-Key": "k"}
    with contextlib.ExitStack() as stack:
        streams = [
            stack.enter_context(start(connect_to(limited, worker), script, {**subject, **more}))
            for worker, more in ((workers[0], {}), (workers[1], {}), (workers[0], key))
        ]
        one, two, three = map(run_of, streams)
        for worker in workers:
            refused = start(connect_to(limited, worker), script, subject)
            assert refusal(refused)["code"] == "too_many_runs"
        headers = {**JSON, **subject}
        refused = open_stream(
            limited, CHAT, method="POST", headers=headers, body=chat_body(script, stream=True)
        )
        assert refusal(refused)["code"] == "too_many_runs"
        assert script.count == 3

        with start(limited, script, {**subject, **key}) as repeated:
            assert run_of(repeated) == three
        with attach(limited, one, headers=subject) as viewer:
            assert viewer.head.status == 200
        stack.enter_context(start(limited, script, bearer(f"{tag}-other")))
        assert script.count == 4, "another subject has its own"

        assert stop(limited, two, subject) == "stopped"
        other = scripted.script()
        other.say("x")
        stack.enter_context(room(limited, other, subject))
        other.finish()
        until(lambda: other.requests[-1].ended, "another has ended")
        stack.enter_context(
            room(limited, scripted.script(), subject, heartbeat="early", on_disconnect="cancel")
        )


def room(
    server: Server, script: ScriptedAnswer, headers: dict[str, str], **parameters: str
) -> Stream:
    """Start as soon as there is room for it; not often, or it would be too many requests."""

    def attempt() -> Stream | None:
        stream = start(server, script, headers, **parameters)
        if stream.head.status == 200:
            return stream
        refusal(stream)
        return None

    found = until(attempt, "there is room again", pause=0.5)
    assert found is not None
    return found


def test_a_run_that_nobody_watches_counts(
    limited: Server, script: ScriptedAnswer, subject: dict[str, str]
) -> None:
    """Leaving makes no room while the upstream still works on the run."""
    script.say("one")
    for _ in range(RUNS):
        with start(limited, script, subject, on_disconnect="continue") as stream:
            stream.next()
    assert refusal(start(limited, script, subject))["code"] == "too_many_runs"
    script.finish()
    with room(limited, script, subject) as stream:
        assert stream.head.status == 200


def test_too_many_requests(
    limited: Server, script: ScriptedAnswer, subject: dict[str, str], tag: str
) -> None:
    """At the latest when each worker has had its share; only this subject's."""
    script.say("one")
    script.finish()
    served = 0
    while (stream := start(limited, script, subject)).head.status == 200:
        run = run_of(stream)
        events = rest(stream)
        assert end_of("chunks", events) == "[DONE]"
        served += 1
        assert served <= 4 * PER_MINUTE, "two workers, and the clock may begin a minute meanwhile"
    error = refusal(stream)
    assert served >= PER_MINUTE
    assert script.count == served
    assert error["code"] == "rate_limited"
    assert error["type"]

    def refused_in_openais_shape() -> bool:
        answer = ask(limited, CHAT, "POST", {**JSON, **subject}, chat_body(script, stream=True))
        if answer.status != 429:
            return False
        assert int(answer.headers["retry-after"]) >= 1
        return bool(error_of(answer, 429)["code"] == "rate_limited")

    until(refused_in_openais_shape, "each worker has had its share")
    other = start(limited, script, bearer(f"{tag}-other"))
    assert other.head.status == 200
    rest(other)
    # Who has begun a run can go on reading it and stop it.
    stream = attach(limited, run, headers={**subject, "Last-Event-ID": f"{run}.1"})
    assert stream.head.status == 200
    assert rest(stream) == events[1:]
    assert stop(limited, run, subject) == "finished"
