"""A repeated request with the same key is the same run: the upstream is paid once."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.live.kit.clients import open_stream
from tests.live.kit.publishing import error_of
from tests.live.kit.run_events import FORMATS, after, end_of, text_of
from tests.live.kit.runs import JSON, START, ask, ask_start, path_of, rest, run_of, start, stop
from tests.live.kit.scripted import ScriptedAnswer
from tests.live.kit.servers import Server
from tests.live.kit.stores import on_every_store
from tests.live.kit.workers import connect_to, other_worker

ALIAS = "/sse/async_openai_out"
V1 = "/v1/chat/completions"


def key_of(script: ScriptedAnswer) -> dict[str, str]:
    return {"Idempotency-Key": f"key-{script.message}"}


@on_every_store
def test_while_it_runs(runs: Server, script: ScriptedAnswer) -> None:
    """On another worker, too; the repetition gets all of it."""
    script.say("one ")
    with start(runs, script, key_of(script)) as original:
        assert "idempotency-replayed" not in original.head.headers
        run = run_of(original)
        assert original.next().id == f"{run}.1"
        other = connect_to(runs, other_worker(runs, original.connection))
        with (
            start(other, script, key_of(script)) as again,
            start(runs, script, key_of(script)) as third,
        ):
            script.say("two")
            script.finish()
            for repeated in (again, third):
                assert repeated.head.headers["idempotency-replayed"] == "true"
                assert run_of(repeated) == run
                assert text_of("chunks", rest(repeated)) == "one two"
        assert text_of("chunks", rest(original)) == "two"
    assert script.count == 1


@on_every_store
@pytest.mark.parametrize("format", FORMATS)
def test_after_the_end(runs: Server, script: ScriptedAnswer, format: str) -> None:
    script.say("one", "two")
    script.finish()
    first = start(runs, script, key_of(script), format=format)
    run, events = run_of(first), rest(first)
    for worker in runs.workers():
        again = start(connect_to(runs, worker), script, key_of(script), format=format)
        assert again.head.status == 200
        assert again.head.headers["idempotency-replayed"] == "true"
        assert (run_of(again), rest(again)) == (run, events)
    assert script.count == 1


def test_of_a_run_that_was_refused_for_good(runs: Server, script: ScriptedAnswer) -> None:
    """The same request gets the same refusal without the upstream; a new try needs a new key."""
    script.answer(400, b'{"error": {"message": "Broken.", "type": "invalid_request_error"}}')
    first = ask_start(runs, script, key_of(script))
    assert (first.status, first.headers["x-should-retry"]) == (400, "false")
    for format in FORMATS:
        again = ask_start(runs, script, key_of(script), format=format)
        assert (again.status, json.loads(again.body)) == (400, json.loads(first.body))
        assert again.headers["idempotency-replayed"] == "true"
        assert run_of(again) == run_of(first)
    assert script.count == 1
    other = ask_start(runs, script, {"Idempotency-Key": f"other-{script.message}"})
    assert run_of(other) != run_of(first)
    assert script.count == 2


@on_every_store
@pytest.mark.parametrize("status", [429, 500])
def test_of_a_run_that_failed_for_now(runs: Server, script: ScriptedAnswer, status: int) -> None:
    """Each repetition is a run of its own, on whatever worker."""
    script.answer(status, b'{"error": {"message": "Later.", "type": "server_error"}}')
    found = set()
    for count in range(1, 5):
        refused = ask_start(runs, script, key_of(script))
        assert refused.status == status
        assert refused.headers.get("x-should-retry") != "false"
        assert "idempotency-replayed" not in refused.headers
        found.add(run_of(refused))
        assert (len(found), script.count) == (count, count)


@on_every_store
def test_of_one_that_failed_for_now_while_many_repeat_it(
    runs: Server, script: ScriptedAnswer
) -> None:
    script.refuse(429, b'{"error": {"message": "Later."}}')
    assert ask_start(runs, script, key_of(script)).status == 429
    script.say("one")
    with ThreadPoolExecutor(8) as pool:
        streams = list(pool.map(lambda _: start(runs, script, key_of(script)), range(8)))
    script.finish()
    assert len({run_of(stream) for stream in streams}) == 1
    replayed = [stream.head.headers.get("idempotency-replayed") for stream in streams]
    assert sorted(replayed, key=str) == [None] + ["true"] * 7
    assert [text_of("chunks", rest(stream)) for stream in streams] == ["one"] * 8
    assert script.count == 2


@on_every_store
@pytest.mark.parametrize("how", ["stopped", "truncated"])
def test_of_a_run_that_was_broken_off(runs: Server, script: ScriptedAnswer, how: str) -> None:
    script.say("one")
    with start(runs, script, key_of(script), format="text") as original:
        run = run_of(original)
        assert original.next().data == "one"
        if how == "stopped":
            stop(runs, run)
        else:
            script.hang_up()
        rest(original)
    again = start(runs, script, key_of(script), format="text")
    assert run_of(again) == run
    events = rest(again)
    assert text_of("text", events) == "one"
    expected = "stopped" if how == "stopped" else "error:upstream_truncated"
    assert end_of("text", events) == expected
    assert script.count == 1


@pytest.mark.parametrize("where", ["header", "query", "form", "json"])
def test_wherever_the_key_is(runs: Server, script: ScriptedAnswer, where: str) -> None:
    """One key, whichever way it comes: an EventSource's, then that of its page's fetch."""
    script.say("x")
    script.finish()
    key = f"key-{script.message}"
    runs_seen = set()
    for way in (where, "header"):
        headers, path = {}, path_of(START, user_message=script.message)
        body, method = None, "GET"
        if way == "header":
            headers = {"Idempotency-Key": key}
        elif way == "query":
            path = path_of(START, user_message=script.message, idempotency_key=key)
        elif way == "form":
            path, headers = START, {"Content-Type": "application/x-www-form-urlencoded"}
            method, body = "POST", f"user_message={script.message}&idempotency_key={key}".encode()
        else:
            path, headers, method = START, JSON, "POST"
            body = json.dumps({"user_message": script.message, "idempotency_key": key}).encode()
        stream = open_stream(runs, path, method=method, headers=headers, body=body)
        runs_seen.add(run_of(stream))
        assert text_of("chunks", rest(stream)) == "x"
    assert len(runs_seen) == 1
    assert script.count == 1


@on_every_store
@pytest.mark.parametrize(
    "change",
    [
        {"system_prompt": "Be rude."},
        {"model": "another"},
        {"messages": [{"role": "user", "content": "something else"}]},
        {"user_message": "something else"},
    ],
    ids=lambda change: next(iter(change)),
)
@pytest.mark.parametrize("running", [True, False], ids=["running", "ended"])
def test_other_content(
    runs: Server, script: ScriptedAnswer, running: bool, change: dict[str, Any]
) -> None:
    script.say("one")
    if not running:
        script.finish()
    with start(runs, script, key_of(script)) as original:
        run = run_of(original)
        refused = ask_start(runs, script, key_of(script), **change)
        assert error_of(refused, 409)["code"] == "idempotency_key_reused"
        assert refused.headers.get("x-run-id") != run, "it gets nothing of it"
        if running:
            script.finish()
        assert end_of("chunks", rest(original)) == "[DONE]"
    assert script.count == 1


@pytest.mark.parametrize(
    "change", [{"format": "text"}, {"on_disconnect": "cancel"}, {"heartbeat": "early"}], ids=str
)
def test_what_is_not_content(runs: Server, script: ScriptedAnswer, change: dict[str, str]) -> None:
    script.say("one")
    script.finish()
    first = start(runs, script, key_of(script))
    run = run_of(first)
    rest(first)
    with start(runs, script, key_of(script), **change) as again:
        assert run_of(again) == run
        assert text_of(change.get("format", "chunks"), rest(again)) == "one"
    assert script.count == 1


def test_the_alias_is_the_same_route(runs: Server, script: ScriptedAnswer) -> None:
    script.say("one")
    script.finish()
    found = set()
    for path in (START, ALIAS):
        stream = open_stream(
            runs, path_of(path, user_message=script.message), headers=key_of(script)
        )
        found.add(run_of(stream))
        rest(stream)
    assert len(found) == 1
    assert script.count == 1


def test_another_route_is_another_scope(runs: Server, script: ScriptedAnswer) -> None:
    script.say("one")
    script.finish()
    first = start(runs, script, key_of(script))
    message = {"role": "user", "content": script.message}
    body = json.dumps({"model": "m", "stream": True, "messages": [message]}).encode()
    other = open_stream(runs, V1, method="POST", headers={**JSON, **key_of(script)}, body=body)
    assert other.head.status == 200
    assert "idempotency-replayed" not in other.head.headers
    assert run_of(first) != run_of(other)
    for stream in (first, other):
        assert text_of("chunks", rest(stream)) == "one"
    assert script.count == 2


def test_a_repetition_with_a_cursor(runs: Server, script: ScriptedAnswer) -> None:
    """An EventSource with its key in the query repeats both when it comes back."""
    script.say("one", "two")
    script.finish()
    path = path_of(START, user_message=script.message, idempotency_key=script.message)
    first = open_stream(runs, path)
    run, events = run_of(first), rest(first)
    for seen in range(4):
        again = open_stream(runs, path, headers={"Last-Event-ID": f"{run}.{seen}"})
        assert rest(again) == after(run, events, seen)
    assert ask(runs, path, headers={"Last-Event-ID": f"{run}.5"}).status == 204
    assert script.count == 1


INVALID = ["", "x" * 256, "two words", "tab\there", "caf\xe9", "\x7f"]


@pytest.mark.parametrize("key", INVALID, ids=lambda key: repr(key[:10]))
def test_what_is_no_key(runs: Server, script: ScriptedAnswer, key: str) -> None:
    path = path_of(START, user_message=script.message, idempotency_key=key)
    answers = [ask(runs, path)]
    body = json.dumps({"user_message": script.message, "idempotency_key": key}).encode()
    answers.append(ask(runs, START, "POST", JSON, body))
    if "\x7f" not in key:  # gunicorn refuses that one itself
        answers.append(ask_start(runs, script, {"Idempotency-Key": key}))
    for answer in answers:
        assert error_of(answer, 400)["type"] == "invalid_request_error"
    assert script.count == 0


@pytest.mark.parametrize("key", ["x", "~!@#$%^&*()_+{}|:<>?,./;'[]\\`", "k" * 255])
def test_what_is_one(runs: Server, script: ScriptedAnswer, key: str) -> None:
    script.say("x")
    script.finish()
    answers = []
    for _ in range(2):
        # Each of these keys is used once in the life of a server: the message is in the content.
        stream = start(runs, script, {"Idempotency-Key": key})
        answers.append(stream.head.status)
        rest(stream)
    assert answers == [200, 200]
    assert script.count == 1
