"""The examples whose runs are what a model says: their clients come back, from any worker."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.live.kit.clients import Stream, open_stream
from tests.live.kit.connection import Connection
from tests.live.kit.examples import example
from tests.live.kit.publishing import error_of
from tests.live.kit.run_events import last_id
from tests.live.kit.runs import ask, path_of, read, run_of, take
from tests.live.kit.scripted import ScriptedAnswer, ScriptedUpstream
from tests.live.kit.servers import Server
from tests.live.kit.waiting import until
from tests.live.kit.workers import connect_to, other_worker

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def question(
    where: Server | Connection, asked: ScriptedAnswer | str, last: str | None = None
) -> Stream:
    text = asked if isinstance(asked, str) else asked.message
    cursor = {} if last is None else {"Last-Event-ID": last}
    return open_stream(where, path_of("/answers", question=text), headers=cursor)


def sign_in(server: Server, name: str) -> dict[str, str]:
    """The headers of a signed-in user."""
    body = urlencode({"name": name, "password": f"{name}-1"}).encode()
    answer = ask(server, "/login", "POST", FORM, body)
    assert answer.status == 302
    return {"Cookie": answer.headers["set-cookie"].partition(";")[0]}


def test_a_chat_is_its_users(
    tmp_path: Path, scripted: ScriptedUpstream, script: ScriptedAnswer
) -> None:
    changes = scripted.settings()
    with example("chat_login", "gunicorn", tmp_path, changes=changes) as server:
        ada, bob = sign_in(server, "ada"), sign_in(server, "bob")
        assert ask(server, "/chat", "POST", FORM, b"message=hello").status == 401
        body = urlencode({"message": script.message}).encode()
        begun = open_stream(server, "/chat", method="POST", headers={**FORM, **ada}, body=body)
        with begun as stream:
            run, worker = run_of(stream), other_worker(server, stream.connection)
            script.say("One ")
            take(stream, 1, "ui")
        path = f"/chat/{run}"
        assert ask(server, path).status == 401
        assert ask(server, path, headers=bob).status == 204
        error_of(ask(server, path, "DELETE", bob), 404)
        script.say("two")
        with open_stream(connect_to(server, worker), path, headers=ada) as again:
            seen = take(again, 2, "ui")
            stopped = ask(server, path, "DELETE", ada)
            assert json.loads(stopped.body) == {"state": "stopped"}
            found = read(again, "ui", before=seen)
        assert (found.text, found.end) == ("One two", "stopped")
        script.wait_until_left()
        assert script.count == 1


@pytest.mark.parametrize(
    ("name", "package"),
    [("langchain_stream", "langchain_openai"), ("pydantic_ai_stream", "pydantic_ai")],
)
def test_what_another_library_says(
    tmp_path: Path, scripted: ScriptedUpstream, name: str, package: str
) -> None:
    pytest.importorskip(package)
    with example(name, "gunicorn", tmp_path, changes=scripted.settings()) as server:
        # Several at once and one after another: each has its own thread or greenlet.
        for _ in range(3):
            scripts = scripted.script(), scripted.script()
            first, second = (question(server, each) for each in scripts)
            for each in scripts:
                each.wait_for_requests()
                each.say("One ", "zwei ")
            with first:
                worker = other_worker(server, first.connection)
                seen = take(first, 1)
            for each in scripts:
                each.say("three")
                each.finish()
            assert read(second, "text").text == "One zwei three"
            again = question(connect_to(server, worker), "comes back", last_id(seen))
            assert run_of(again) == run_of(first)
            found = read(again, "text", before=seen)
            assert (found.text, found.end) == ("One zwei three", "stop")
            assert [each.count for each in scripts] == [1, 1]

        left = scripted.script()
        with question(server, left) as stream:
            left.say("One")
            seen = take(stream, 1)
            stopped = ask(server, f"/answers/{run_of(stream)}", "DELETE")
            assert json.loads(stopped.body) == {"state": "stopped"}
            assert read(stream, "text", before=seen).end == "stopped"

            def gone() -> bool:
                if name == "pydantic_ai_stream":
                    left.say("a thread notices it with its next piece")
                return left.left()

            until(gone, "the model was left")
