"""What OpenAI's clients ask again by themselves: what may succeed, and nothing that is final."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

from tests.live.kit.runs import stop
from tests.live.kit.scripted import ScriptedAnswer
from tests.live.kit.servers import Server
from tests.live.kit.services import authorization
from tests.live.kit.tools import node
from tests.live.kit.waiting import until
from tests.scripted_upstream import DONE, frame

LATER = b'{"error": {"message": "Later.", "type": "rate_limit_error"}}'
DOCUMENT = b'{"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "one"}}]}'  # noqa: E501
Client = Callable[..., dict[str, Any]]


def with_python(server: Server, access_token: str, request: dict[str, Any]) -> dict[str, Any]:
    """The same as `openai-v1.mjs` does."""
    key = request.get("key")
    with openai.OpenAI(
        base_url=f"{server.url}/v1", api_key=access_token, max_retries=request["retries"]
    ) as client:
        try:
            answer: Any = client.chat.completions.create(
                model="m",
                messages=[{"role": "user", "content": request["chat"]}],
                stream=request["stream"],
                extra_headers={"Idempotency-Key": key} if key else {},
            )
            if not request["stream"]:
                return {"text": answer.choices[0].message.content, "end": "clean"}
            texts = [chunk.choices[0].delta.content for chunk in answer if chunk.choices]
            return {"text": "".join(text or "" for text in texts), "end": "clean"}
        except openai.APIStatusError as error:
            return {"end": "error", "status": error.status_code, "code": error.code}


def with_node(server: Server, access_token: str, request: dict[str, Any]) -> dict[str, Any]:
    done = node("openai-v1.mjs", f"{server.url}/v1", access_token, json.dumps([request]))
    reported: dict[str, Any] = json.loads(done.stdout)
    return reported


CLIENTS = pytest.mark.parametrize("client", [with_python, with_node])


@CLIENTS
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("key", [True, False])
def test_a_passing_refusal_is_met_with_another_attempt(
    runs: Server, script: ScriptedAnswer, access_token: str, client: Client, stream: bool, key: bool
) -> None:
    script.refuse(429, LATER, "Retry-After-Ms: 1")
    if stream:
        script.say("one")
        script.finish()
    else:
        script.answer(200, DOCUMENT)
    request = {"chat": script.message, "stream": stream, "retries": 1}
    reported = client(runs, access_token, {**request, "key": script.message} if key else request)
    assert (reported["end"], reported["text"]) == ("clean", "one")
    assert script.count == 2


@pytest.mark.parametrize("stream", [True, False])
def test_rates_and_request_ids_are_passed_on(
    runs: Server, script: ScriptedAnswer, access_token: str, stream: bool
) -> None:
    sent = ("x-ratelimit-remaining-tokens: 59", "x-request-id: req_1", "set-cookie: a=b")
    script.refuse(400, b'{"error": {"message": "no"}}', *sent)
    if stream:
        script.answer(200, frame("one", finish="stop") + DONE, *sent, kind="text/event-stream")
    else:
        script.answer(200, DOCUMENT, *sent)
    with openai.OpenAI(base_url=f"{runs.url}/v1", api_key=access_token) as client:

        def ask(**headers: str) -> Any:
            return client.chat.completions.with_raw_response.create(
                model="m",
                messages=[{"role": "user", "content": script.message}],
                stream=stream,
                extra_headers=headers,
            )

        with pytest.raises(openai.BadRequestError) as refused:
            ask()
        answered = ask()
        answered.http_response.read()
        named = ask(**{"X-Request-Id": "mine"})
        named.http_response.read()
    assert refused.value.request_id == "req_1"
    for headers in (refused.value.response.headers, answered.headers):
        assert (headers["x-ratelimit-remaining-tokens"], headers["x-request-id"]) == ("59", "req_1")
        assert headers["x-upstream-request-id"] == "req_1"
        assert headers["x-run-id"]
        assert "set-cookie" not in headers
    # Whoever names a request reads that name, and no other.
    assert named.headers.get_list("x-request-id") == ["mine"]
    assert named.headers.get_list("x-upstream-request-id") == ["req_1"]


def newest_run(server: Server) -> str:
    """A client that waits for a document does not know its run yet."""
    path = server.directory / "runs.sqlite"
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        (id,) = database.execute("SELECT id FROM runs ORDER BY number DESC LIMIT 1").fetchone()
    return str(id)


@contextlib.contextmanager
def stopped_meanwhile(server: Server, script: ScriptedAnswer, access_token: str) -> Iterator[None]:
    """Stop the script's run as soon as the upstream is asked."""

    def stop_it() -> None:
        script.wait_for_requests()
        stop(server, newest_run(server), authorization(access_token))

    thread = threading.Thread(target=stop_it)
    thread.start()
    try:
        yield
    finally:
        thread.join(30)


@CLIENTS
def test_what_was_stopped_is_not_asked_again(
    runs: Server, script: ScriptedAnswer, access_token: str, client: Client
) -> None:
    with stopped_meanwhile(runs, script, access_token):
        reported = client(
            runs, access_token, {"chat": script.message, "stream": False, "retries": 2}
        )
    assert (reported["end"], reported["status"], reported["code"]) == ("error", 409, "stopped")
    assert script.count == 1
    until(script.left, "the upstream is not asked any more")


@CLIENTS
def test_a_key_of_other_content_is_refused_once(
    runs: Server, script: ScriptedAnswer, access_token: str, client: Client
) -> None:
    script.answer(200, DOCUMENT)
    request = {"chat": script.message, "stream": False, "retries": 2, "key": script.message}
    assert client(runs, access_token, request)["end"] == "clean"
    reported = client(runs, access_token, {**request, "chat": f"{script.message} other"})
    assert (reported["status"], reported["code"]) == (409, "idempotency_key_reused")
    assert script.count == 1
