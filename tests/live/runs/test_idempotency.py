"""A repeated request with the same key is the same run: the upstream is paid once."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.live.kit.clients import open_stream
from tests.live.kit.paced import Play
from tests.live.kit.publishing import error_of
from tests.live.kit.run_events import FORMATS, after, end_of, text_of
from tests.live.kit.runs import JSON, START, ask, ask_start, path_of, rest, run_of, start, stop
from tests.live.kit.servers import Server
from tests.live.kit.workers import connect_to, other_worker

ALIAS = "/sse/async_openai_out"
V1 = "/v1/chat/completions"


def key_of(play: Play) -> dict[str, str]:
    return {"Idempotency-Key": f"key-{play.message}"}


def test_while_it_runs(runs: Server, play: Play) -> None:
    """On another worker, too; the repetition gets all of it."""
    play.say("one ")
    with start(runs, play, key_of(play)) as original:
        assert "idempotency-replayed" not in original.head.headers
        run = run_of(original)
        assert original.next().id == f"{run}.1"
        other = connect_to(runs, other_worker(runs, original.connection))
        with start(other, play, key_of(play)) as again, start(runs, play, key_of(play)) as third:
            play.say("two")
            play.finish()
            for repeated in (again, third):
                assert repeated.head.headers["idempotency-replayed"] == "true"
                assert run_of(repeated) == run
                assert text_of("chunks", rest(repeated)) == "one two"
        assert text_of("chunks", rest(original)) == "two"
    assert play.count == 1


@pytest.mark.parametrize("form", FORMATS)
def test_after_the_end(runs: Server, play: Play, form: str) -> None:
    play.say("one", "two")
    play.finish()
    first = start(runs, play, key_of(play), format=form)
    run, events = run_of(first), rest(first)
    for worker in runs.workers():
        again = start(connect_to(runs, worker), play, key_of(play), format=form)
        assert again.head.status == 200
        assert again.head.headers["idempotency-replayed"] == "true"
        assert (run_of(again), rest(again)) == (run, events)
    assert play.count == 1


def test_of_a_run_that_was_refused_for_good(runs: Server, play: Play) -> None:
    """The same request is refused again, so nobody is asked; another try takes another key."""
    play.answer(400, b'{"error": {"message": "Broken.", "type": "invalid_request_error"}}')
    first = ask_start(runs, play, key_of(play))
    assert (first.status, first.headers["x-should-retry"]) == (400, "false")
    for form in FORMATS:
        again = ask_start(runs, play, key_of(play), format=form)
        assert (again.status, json.loads(again.body)) == (400, json.loads(first.body))
        assert again.headers["idempotency-replayed"] == "true"
        assert run_of(again) == run_of(first)
    assert play.count == 1
    other = ask_start(runs, play, {"Idempotency-Key": f"other-{play.message}"})
    assert run_of(other) != run_of(first)
    assert play.count == 2


@pytest.mark.parametrize("status", [429, 500])
def test_of_a_run_that_failed_for_now(runs: Server, play: Play, status: int) -> None:
    """Each repetition is a run of its own, on whatever worker."""
    play.answer(status, b'{"error": {"message": "Later.", "type": "server_error"}}')
    found = set()
    for count in range(1, 5):
        refused = ask_start(runs, play, key_of(play))
        assert refused.status == status
        assert refused.headers.get("x-should-retry") != "false"
        assert "idempotency-replayed" not in refused.headers
        found.add(run_of(refused))
        assert (len(found), play.count) == (count, count)


def test_of_one_that_failed_for_now_while_many_repeat_it(runs: Server, play: Play) -> None:
    play.refuse(429, b'{"error": {"message": "Later."}}')
    assert ask_start(runs, play, key_of(play)).status == 429
    play.say("one")
    with ThreadPoolExecutor(8) as pool:
        streams = list(pool.map(lambda _: start(runs, play, key_of(play)), range(8)))
    play.finish()
    assert len({run_of(stream) for stream in streams}) == 1
    replayed = [stream.head.headers.get("idempotency-replayed") for stream in streams]
    assert sorted(replayed, key=str) == [None] + ["true"] * 7
    assert [text_of("chunks", rest(stream)) for stream in streams] == ["one"] * 8
    assert play.count == 2


@pytest.mark.parametrize("how", ["stopped", "truncated"])
def test_of_a_run_that_was_broken_off(runs: Server, play: Play, how: str) -> None:
    play.say("one")
    with start(runs, play, key_of(play), format="text") as original:
        run = run_of(original)
        assert original.next().data == "one"
        if how == "stopped":
            stop(runs, run)
        else:
            play.hang_up()
        rest(original)
    again = start(runs, play, key_of(play), format="text")
    assert run_of(again) == run
    events = rest(again)
    assert text_of("text", events) == "one"
    expected = "stopped" if how == "stopped" else "error:upstream_truncated"
    assert end_of("text", events) == expected
    assert play.count == 1


@pytest.mark.parametrize("where", ["header", "query", "form", "json"])
def test_wherever_the_key_is(runs: Server, play: Play, where: str) -> None:
    """One key, whichever way it comes: an EventSource's, then that of its page's fetch."""
    play.say("x")
    play.finish()
    key = f"key-{play.message}"
    runs_seen = set()
    for way in (where, "header"):
        headers, path = {}, path_of(START, user_message=play.message)
        body, method = None, "GET"
        if way == "header":
            headers = {"Idempotency-Key": key}
        elif way == "query":
            path = path_of(START, user_message=play.message, idempotency_key=key)
        elif way == "form":
            path, headers = START, {"Content-Type": "application/x-www-form-urlencoded"}
            method, body = "POST", f"user_message={play.message}&idempotency_key={key}".encode()
        else:
            path, headers, method = START, JSON, "POST"
            body = json.dumps({"user_message": play.message, "idempotency_key": key}).encode()
        stream = open_stream(runs, path, method=method, headers=headers, body=body)
        runs_seen.add(run_of(stream))
        assert text_of("chunks", rest(stream)) == "x"
    assert len(runs_seen) == 1
    assert play.count == 1


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
def test_other_content(runs: Server, play: Play, running: bool, change: dict[str, Any]) -> None:
    play.say("one")
    if not running:
        play.finish()
    with start(runs, play, key_of(play)) as original:
        run = run_of(original)
        refused = ask_start(runs, play, key_of(play), **change)
        assert error_of(refused, 409)["code"] == "idempotency_key_reused"
        assert refused.headers.get("x-run-id") != run, "it is told nothing of it"
        if running:
            play.finish()
        assert end_of("chunks", rest(original)) == "[DONE]"
    assert play.count == 1


@pytest.mark.parametrize(
    "change", [{"format": "text"}, {"on_disconnect": "cancel"}, {"heartbeat": "early"}], ids=str
)
def test_what_is_not_content(runs: Server, play: Play, change: dict[str, str]) -> None:
    play.say("one")
    play.finish()
    first = start(runs, play, key_of(play))
    run = run_of(first)
    rest(first)
    with start(runs, play, key_of(play), **change) as again:
        assert run_of(again) == run
        assert text_of(change.get("format", "chunks"), rest(again)) == "one"
    assert play.count == 1


def test_the_alias_is_the_same_route(runs: Server, play: Play) -> None:
    play.say("one")
    play.finish()
    found = set()
    for path in (START, ALIAS):
        stream = open_stream(runs, path_of(path, user_message=play.message), headers=key_of(play))
        found.add(run_of(stream))
        rest(stream)
    assert len(found) == 1
    assert play.count == 1


def test_another_route_is_another_scope(runs: Server, play: Play) -> None:
    play.say("one")
    play.finish()
    first = start(runs, play, key_of(play))
    message = {"role": "user", "content": play.message}
    body = json.dumps({"model": "m", "stream": True, "messages": [message]}).encode()
    other = open_stream(runs, V1, method="POST", headers={**JSON, **key_of(play)}, body=body)
    assert other.head.status == 200
    assert "idempotency-replayed" not in other.head.headers
    assert run_of(first) != run_of(other)
    for stream in (first, other):
        assert text_of("chunks", rest(stream)) == "one"
    assert play.count == 2


def test_a_repetition_with_a_cursor(runs: Server, play: Play) -> None:
    """An EventSource with its key in the query repeats both when it comes back."""
    play.say("one", "two")
    play.finish()
    path = path_of(START, user_message=play.message, idempotency_key=play.message)
    first = open_stream(runs, path)
    run, events = run_of(first), rest(first)
    for seen in range(4):
        again = open_stream(runs, path, headers={"Last-Event-ID": f"{run}.{seen}"})
        assert rest(again) == after(run, events, seen)
    assert ask(runs, path, headers={"Last-Event-ID": f"{run}.5"}).status == 204
    assert play.count == 1


INVALID = ["", "x" * 256, "two words", "tab\there", "caf\xe9", "\x7f"]


@pytest.mark.parametrize("key", INVALID, ids=lambda key: repr(key[:10]))
def test_what_is_no_key(runs: Server, play: Play, key: str) -> None:
    path = path_of(START, user_message=play.message, idempotency_key=key)
    answers = [ask(runs, path)]
    body = json.dumps({"user_message": play.message, "idempotency_key": key}).encode()
    answers.append(ask(runs, START, "POST", JSON, body))
    if "\x7f" not in key:  # gunicorn refuses that one itself
        answers.append(ask_start(runs, play, {"Idempotency-Key": key}))
    for answer in answers:
        assert error_of(answer, 400)["type"] == "invalid_request_error"
    assert play.count == 0


@pytest.mark.parametrize("key", ["x", "~!@#$%^&*()_+{}|:<>?,./;'[]\\`", "k" * 255])
def test_what_is_one(runs: Server, play: Play, key: str) -> None:
    play.say("x")
    play.finish()
    answers = []
    for _ in range(2):
        # Each of these keys is used once in the life of a server: the message is in the content.
        stream = start(runs, play, {"Idempotency-Key": key})
        answers.append(stream.head.status)
        rest(stream)
    assert answers == [200, 200]
    assert play.count == 1
