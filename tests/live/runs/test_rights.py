"""A run belongs to its subject; nobody else can attach, stop, or learn that it exists."""

from __future__ import annotations

import json

import pytest

from tests.live.kit.clients import open_stream
from tests.live.kit.publishing import error_of
from tests.live.kit.run_events import ABSENT_IS_204, FORMATS, after, end_of, parsed, text_of
from tests.live.kit.runs import (
    JSON,
    NO_RUN,
    START,
    ask,
    ask_start,
    attach,
    bearer,
    path_of,
    replay,
    rest,
    run_of,
    start,
    stop,
)
from tests.live.kit.scripted import ScriptedAnswer
from tests.live.kit.servers import Server
from tests.live.kit.waiting import until

ALICE = bearer("alice")
BOB = bearer("bob")
#: Every right but the one that it takes.
CHANNELS = bearer("alice", subscribe=["**"], publish=["**"])
ALL = bearer("alice", subscribe=["**"], publish=["**"], complete=True)
ROUTES = [
    ("GET", START),
    ("POST", START),
    ("GET", "/sse/async_openai_out"),
    ("GET", f"/runs/{NO_RUN}"),
    ("GET", f"/runs/{NO_RUN}?format=ui"),
    ("DELETE", f"/runs/{NO_RUN}"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/responses"),
    ("GET", "/v1/models"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_without_a_token(guarded_runs: Server, method: str, path: str) -> None:
    headers = JSON if method == "POST" else {}
    body = b'{"model": "m"}' if method == "POST" else None
    for more in ({}, {"Authorization": "Bearer nonsense"}, bearer("alice", -10)):
        answer = ask(guarded_runs, path, method, {**headers, **more}, body)
        error_of(answer, 401)
        assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_without_the_right(guarded_runs: Server, method: str, path: str) -> None:
    headers = JSON if method == "POST" else {}
    body = b'{"model": "m"}' if method == "POST" else None
    error_of(ask(guarded_runs, path, method, {**headers, **CHANNELS}, body), 403)


def test_the_right_has_to_be_there_for_a_run_that_exists(
    guarded_runs: Server, script: ScriptedAnswer
) -> None:
    """The same answer as for one that does not: nothing is learnt from it."""
    script.say("one")
    script.finish()
    stream = start(guarded_runs, script, ALICE)
    run = run_of(stream)
    rest(stream)
    for headers in ({}, CHANNELS, bearer("bob", subscribe=["**"])):
        for method in ("GET", "DELETE"):
            known = ask(guarded_runs, f"/runs/{run}", method, headers)
            unknown = ask(guarded_runs, f"/runs/{NO_RUN}", method, headers)
            assert known.status == unknown.status
            assert known.body == unknown.body


@pytest.mark.parametrize("running", [True, False], ids=["running", "ended"])
def test_another_subject(guarded_runs: Server, script: ScriptedAnswer, running: bool) -> None:
    script.say("one")
    if not running:
        script.finish()
    with start(guarded_runs, script, ALICE, format="text") as stream:
        run = run_of(stream)
        assert stream.next().data == "one"

        def same(path: str, method: str = "GET", last: str | None = None) -> int:
            """Ask for the run and for none that is; the answers may differ in nothing."""
            answers = []
            for each in (run, NO_RUN):
                cursor = {"Last-Event-ID": last.replace(run, each)} if last else {}
                target = path.replace(run, each)
                answers.append(ask(guarded_runs, target, method, {**BOB, **cursor}))
            known, unknown = answers
            assert known.status == unknown.status
            assert known.body.replace(run.encode(), NO_RUN.encode()) == unknown.body
            varying = ("date", "content-length", "x-request-id")
            assert {k: v for k, v in known.headers.items() if k not in varying} == {
                k: v for k, v in unknown.headers.items() if k not in varying
            }
            return known.status

        for format in set(FORMATS) - set(ABSENT_IS_204):
            assert same(f"/runs/{run}?format={format}") == 404
            assert same(f"/runs/{run}?format={format}&last_event_id={run}.1") == 404
            assert same(f"/runs/{run}?format={format}&last_event_id={run}.99") == 404
        for format in ABSENT_IS_204:
            assert same(f"/runs/{run}?format={format}") == 204
        assert same(f"/runs/{run}", "DELETE") == 404
        assert same(f"/runs/{run}", "HEAD") == 404
        url = path_of(START, user_message=script.message)
        for last in (f"{run}.0", f"{run}.1", f"{run}.4", f"{run}.99"):
            assert same(url, last=last) == 404
            assert same(f"{url}&last_event_id={last}") == 404
        if running:
            assert not script.left()
            script.finish()
        assert end_of("text", rest(stream)) == "stop"
    assert script.count == 1


def test_keys_of_several_subjects(guarded_runs: Server, script: ScriptedAnswer) -> None:
    """The same key and content, and two answers; other content is no conflict either."""
    script.say("one")
    script.finish()
    key = {"Idempotency-Key": "the-same-for-both"}
    found = []
    for subject in (ALICE, BOB):
        stream = start(guarded_runs, script, {**subject, **key})
        assert stream.head.status == 200
        assert "idempotency-replayed" not in stream.head.headers
        found.append(run_of(stream))
        rest(stream)
    assert len(set(found)) == 2
    assert script.count == 2
    carol = {**bearer("carol"), **key}
    with start(guarded_runs, script, carol, system_prompt="Be rude.") as stream:
        assert stream.head.status == 200


def test_another_token_of_the_same_subject(guarded_runs: Server, script: ScriptedAnswer) -> None:
    script.say("one")
    with start(guarded_runs, script, ALICE, format="text") as stream:
        run = run_of(stream)
        stream.next()
        token = bearer("alice", 300)
        viewer = attach(guarded_runs, run, "text", headers=token)
        assert stop(guarded_runs, run, token) == "stopped"
        assert end_of("text", rest(viewer)) == "stopped"


def test_a_token_in_the_query(guarded_runs: Server, script: ScriptedAnswer) -> None:
    """For EventSource, which can set no headers."""
    script.say("one")
    token = ALICE["Authorization"].removeprefix("Bearer ")
    path = path_of(START, user_message=script.message, access_token=token, format="text")
    with open_stream(guarded_runs, path) as stream:
        run = run_of(stream)
        assert stream.next().data == "one"
        script.finish()
        rest(stream)
    viewed = open_stream(guarded_runs, f"/runs/{run}?format=text&access_token={token}")
    events = rest(viewed)
    assert text_of("text", events) == "one"
    resumed = open_stream(guarded_runs, path, headers={"Last-Event-ID": f"{run}.1"})
    assert rest(resumed) == after(run, events, 1)


def test_no_channel_reaches_a_run(guarded_runs: Server, script: ScriptedAnswer) -> None:
    """Not by any name or pattern, to read or to write, with all the rights that there are."""
    script.say("secret one")
    with start(guarded_runs, script, ALL, format="text") as stream:
        run = run_of(stream)
        assert stream.next().data == "secret one"
        names = ["**", "*", run, f"runs.{run}", f"run.{run}", f"run:{run}", f"_runs.{run}", "a"]
        query = "&".join(f"c={name}" for name in names)
        target = f"/channels?{query}&last_event_id=earliest"
        with open_stream(guarded_runs, target, headers=ALL) as channels:
            assert channels.head.status == 200
            script.say("secret two")
            assert stream.next().data == "secret two"
            for name in (run, f"runs.{run}", f"run:{run}"):
                answer = ask(guarded_runs, f"/channels/{name}", "POST", ALL, b"intruder")
                assert answer.status in (201, 400, 403, 404)
            assert ask(guarded_runs, "/channels/a", "POST", ALL, b"marker").status == 201
            received = []
            while "marker" not in received:
                received.append(channels.next().data)
        assert not any("secret" in (data or "") for data in received)
        script.finish()
        assert text_of("text", rest(stream)) == ""
    events = replay(guarded_runs, run, "text", ALL)
    assert text_of("text", events) == "secret onesecret two"
    assert "intruder" not in str(events)


@pytest.mark.parametrize("format", FORMATS)
def test_a_token_that_ends(guarded_runs: Server, script: ScriptedAnswer, format: str) -> None:
    """It ends the viewer with a failure; the run goes on for a viewer with a fresh token."""
    script.say("one ")
    short = bearer("alice", 3)
    with start(guarded_runs, script, short, format=format) as stream:
        run = run_of(stream)
        viewer = attach(guarded_runs, run, format, headers=short)
        for each in (stream, viewer):
            events = rest(each)
            failure = events[-1]
            if format == "ui":
                assert any(parsed(e)["type"] == "error" for e in events if e.data != "[DONE]")
            else:
                assert parsed(failure)["error"]["code"] == "token_expired"
                assert failure.event == (None if format == "chunks" else "failure")
                assert failure.id is None, (
                    "it is not the run's end: it must not be resumed after it"
                )
    error_of(ask(guarded_runs, f"/runs/{run}", headers=short), 401)
    assert not script.left()
    viewer = attach(guarded_runs, run, format, headers=ALICE)
    script.say("two")
    script.finish()
    events = rest(viewer)
    assert text_of(format, events) == "one two"


def test_what_the_logs_do_not_say(guarded_runs: Server, script: ScriptedAnswer) -> None:
    """No token, no prompt, no key, whether a request is served or refused."""
    script.say("an-answer-of-the-model")
    script.finish()
    token = ALICE["Authorization"].removeprefix("Bearer ")
    key = "key-that-nobody-must-see"
    path = path_of(
        START, user_message=script.message, idempotency_key=key, access_token=token, format="text"
    )
    stream = open_stream(guarded_runs, path)
    run = run_of(stream)
    rest(stream)
    rest(start(guarded_runs, script, {**ALICE, "Idempotency-Key": key}))
    refused = [
        ask(guarded_runs, path.replace("format=text", "format=xml")),
        ask(guarded_runs, path + "&on_disconnect=nonsense"),
        ask(guarded_runs, path.replace(token, token[:-3])),
        ask(guarded_runs, path.replace(script.message, f"{script.message}-other")),
        ask(guarded_runs, path + f"&last_event_id={NO_RUN}.1"),
        ask(guarded_runs, path + "&last_event_id=nonsense"),
        ask(guarded_runs, path.replace(START, f"/runs/{NO_RUN}")),
        ask(guarded_runs, path, "PATCH"),
        ask_start(guarded_runs, script, {**ALICE, "Idempotency-Key": key + " x"}),
        ask(guarded_runs, path, headers={"Last-Event-ID": f"{run}.99"}),
    ]
    assert all(answer.status >= 400 or answer.status == 204 for answer in refused)
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": script.message}]})
    ask(guarded_runs, f"/v1/chat/completions?access_token={token}", "POST", JSON, body.encode())
    until(lambda: "PATCH" in guarded_runs.log(), "the last of them is in the access log")
    log = guarded_runs.log()
    assert f'"GET {START} ' in log, "the access log is on"
    for secret in (token, "eyJ", script.message, key, "an-answer-of-the-model"):
        assert secret not in log
