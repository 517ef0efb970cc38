"""The examples keep what their docstrings promise."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from pathlib import Path
from urllib.parse import urlencode

import psutil

from tests.live.kit.clients import Stream, open_stream
from tests.live.kit.connection import Answer, fetch
from tests.live.kit.events import Sent
from tests.live.kit.examples import documented, example
from tests.live.kit.servers import ROOT, Server, environment
from tests.live.kit.waiting import until

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def post(
    server: Server, path: str, values: dict[str, str], headers: dict[str, str] | None = None
) -> Answer:
    """What a form sends."""
    body = urlencode(values).encode()
    return fetch(server, path, method="POST", headers={**FORM, **(headers or {})}, body=body)


def test_the_plain_generator_and_its_asgi_twin(tmp_path: Path) -> None:
    answers = []
    for number, (name, program) in enumerate(
        [("plain", "flask"), ("plain", "gunicorn"), ("plain_asgi", "uvicorn")]
    ):
        directory = tmp_path / str(number)
        with example(name, program, directory, ready="/sse/no_sse") as server:
            said = fetch(server, "/sse/v1", method="POST")
            head, text = said.headers, said.body.decode()
            ordinary = fetch(server, "/sse/no_sse", method="POST")
            answers.append((text, json.loads(ordinary.body), head["content-type"]))
            assert ("x-accel-buffering" in head) == (name == "plain")
    assert answers[0][0] == "".join(f"data: {number}\n\n" for number in range(10))
    assert answers[0] == answers[1] == answers[2]


def test_the_clock_resumes_and_ends(tmp_path: Path) -> None:
    with example("clock", "gunicorn", tmp_path) as server:
        with open_stream(server, "/clock") as stream:
            assert [stream.next().id for _ in range(2)] == ["0", "1"]
        with open_stream(server, "/clock", headers={"Last-Event-ID": "57"}) as stream:
            rest = stream.rest()
        assert [event.id for event in rest] == ["58", "59"]
        assert all(re.fullmatch(r"\d\d:\d\d:\d\d", event.data or "") for event in rest)
        assert fetch(server, "/clock", headers={"Last-Event-ID": "59"}).status == 204
        for wrong in ("-7", "yesterday"):
            with open_stream(server, "/clock", headers={"Last-Event-ID": wrong}) as stream:
                assert stream.next().id == "0"


def sign_in(server: Server, name: str) -> dict[str, str]:
    """The headers of a signed-in user."""
    answer = post(server, "/login", {"name": name, "password": f"{name}-1"})
    assert answer.status == 302
    return {"Cookie": answer.headers["set-cookie"].partition(";")[0]}


def write(server: Server, who: dict[str, str], to: str, text: str) -> int:
    return post(server, "/messages", {"to": to, "text": text}, who).status


def test_each_user_has_a_stream_until_signing_out(tmp_path: Path) -> None:
    with example("login", "gunicorn", tmp_path) as server, contextlib.ExitStack() as stack:
        ada, bob = sign_in(server, "ada"), sign_in(server, "bob")
        assert fetch(server, "/events").status == 401
        assert write(server, {}, "ada", "from a stranger") == 401
        assert write(server, ada, "nobody", "hello") == 404

        assert write(server, bob, "ada", "<before>") == 302
        page = fetch(server, "/", headers=ada).body.decode()
        assert "<li>bob: &lt;before&gt;</li>" in page
        cursor = re.search(r"last_event_id=([^\"]+)", page)
        assert cursor
        assert write(server, bob, "ada", "meanwhile") == 302

        def open_one(who: dict[str, str], query: str = "") -> Stream:
            return stack.enter_context(open_stream(server, f"/events{query}", headers=who))

        # More than one, so that both workers have some.
        tabs = [open_one(ada, f"?last_event_id={cursor[1]}") for _ in range(6)]
        other = open_one(bob)
        assert [tab.next().data for tab in tabs] == ["bob: meanwhile"] * 6
        assert write(server, ada, "ada", "to myself") == 302
        assert [tab.next().data for tab in tabs] == ["ada: to myself"] * 6

        ended = fetch(server, "/logout", method="POST", headers=ada)
        assert ended.status == 302
        assert [tab.rest() for tab in tabs] == [[]] * 6, "each ends, and properly"
        gone = {"Cookie": ended.headers["set-cookie"].partition(";")[0]}
        assert fetch(server, "/events", headers=gone).status == 401
        assert write(server, bob, "bob", "I am still here") == 302
        assert other.next().data == "bob: I am still here"


#: What the recipe warns of, put beside the example's own view.
NAIVE = re.compile(r"<!-- the naive way -->\n```python\n(.+?)```", re.DOTALL)
BOTH = """\
from examples.database import *
from examples.database import app, db

{naive}
"""


def test_a_stream_leaves_the_pool_to_others(tmp_path: Path) -> None:
    """Twenty streams share two connections; those of the naive view keep one each."""
    naive = NAIVE.search((ROOT / "docs" / "recipes.md").read_text(encoding="utf-8"))
    assert naive
    (tmp_path / "both.py").write_text(BOTH.format(naive=naive[1]))
    # Shorter than headers wait for a first event: a request that waits in vain gets a status.
    pool = {"pool_size": 2, "max_overflow": 0, "pool_timeout": 0.8}
    server_of = example(
        "database",
        "gunicorn",
        tmp_path,
        application="both:app",
        changes={"FLASK_SQLALCHEMY_ENGINE_OPTIONS": json.dumps(pool)},
        ready="/orders",
        errors=("sqlalchemy.exc.TimeoutError: QueuePool limit of size 2 overflow 0 reached",),
    )
    with server_of as server:
        first = post(server, "/orders", {"item": "tea"})
        assert (first.status, json.loads(first.body)) == (201, {"id": 1})
        assert post(server, "/orders", {}).status == 400
        with contextlib.ExitStack() as stack:

            def open_one(path: str, **headers: str) -> Stream:
                return stack.enter_context(open_stream(server, path, headers=headers))

            streams = [open_one("/orders/events") for _ in range(20)]
            assert {stream.next().data for stream in streams} == {'{"item":"tea"}'}
            assert post(server, "/orders", {"item": "milk"}).status == 201
            assert {stream.next().id for stream in streams} == {"2"}
            assert open_one("/orders/events", **{"Last-Event-ID": "1"}).next().id == "2"
            assert len(json.loads(fetch(server, "/orders").body)) == 2

            assert [open_one("/orders/naive").next().id for _ in range(2)] == ["1", "1"]
            assert fetch(server, "/orders/naive").status == 500
            assert fetch(server, "/orders").status == 500, "nor has the rest of the site any"
        until(lambda: fetch(server, "/orders").status == 200, "their viewers have left")


def test_a_job_is_followed_from_its_first_event(tmp_path: Path) -> None:
    with example("jobs", "gunicorn", tmp_path) as server:
        started = fetch(server, "/jobs", method="POST")
        assert started.status == 202
        path = json.loads(started.body)["events"]
        with open_stream(server, path) as stream:
            during = stream.rest()
        with open_stream(server, path) as stream:
            after = stream.rest()
        assert during == after
        assert [event.event for event in during] == ["progress"] * 6 + ["done"]
        assert [event.data for event in during] == [
            *(f'{{"percent":{percent}}}' for percent in range(0, 101, 20)),
            '{"result":"finished"}',
        ]
        middle, last = during[3].id, during[-1].id
        assert middle
        assert last
        with open_stream(server, path, headers={"Last-Event-ID": middle}) as stream:
            assert stream.rest() == during[4:]
        assert fetch(server, path, headers={"Last-Event-ID": last}).status == 204
        assert fetch(server, "/jobs/00000000-0000-4000-8000-000000000000").status == 404


def test_a_report_outlives_its_worker_and_is_stopped(tmp_path: Path) -> None:
    with example("nightly", "gunicorn", tmp_path, ready="/healthz") as server:
        until(lambda: len(server.workers()) == 2, "two workers")
        started = fetch(server, "/reports", method="POST")
        assert started.status == 202
        path = json.loads(started.body)["report"]
        with open_stream(server, path) as stream:
            seen = [stream.next() for _ in range(3)]
        server.send_signal(signal.SIGHUP)
        last = {"Last-Event-ID": seen[-1].id or ""}
        events = [*seen, *read_to_end(server, path, last)]
        assert [json.loads(event.data or "")["page"] for event in events[:-1]] == [*range(1, 21)]
        assert json.loads(events[-1].data or "") == {"status": "finished", "result": {"pages": 20}}
        assert len({event.id for event in events}) == 21

        path = json.loads(fetch(server, "/reports", method="POST").body)["report"]
        assert json.loads(fetch(server, path, method="DELETE").body) == {"state": "stopped"}
        with open_stream(server, path) as stream:
            assert json.loads(stream.rest()[-1].data or "") == {"status": "stopped"}


def read_to_end(server: Server, path: str, headers: dict[str, str]) -> list[Sent]:
    """What a client gets that comes back until there is an end, as an EventSource does."""
    events: list[Sent] = []
    while not events or events[-1].event == "message":
        with open_stream(server, path, headers=headers) as stream:
            events += stream.rest()
        if events:
            headers = {"Last-Event-ID": events[-1].id or ""}
    return events


def test_a_report_from_cron_is_followed_and_ends(tmp_path: Path) -> None:
    with example("nightly", "gunicorn", tmp_path, ready="/healthz") as server:
        _, command = documented("nightly", "flask")
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env=environment(PYTHONPATH=""),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            try:
                assert process.stdout is not None
                run = process.stdout.readline().strip()
                with open_stream(server, f"/reports/{run}") as stream:
                    events = stream.rest()
                assert process.wait(20) == 0
            finally:
                process.kill()
        assert len(events) == 21
        assert json.loads(events[-1].data or "")["status"] == "finished"


def test_one_worker_publishes_for_all(tmp_path: Path) -> None:
    with example("background", "gunicorn", tmp_path) as server:
        until(lambda: len(server.workers()) == 3, "three workers")
        workers = {each.pid for each in server.workers()}
        with open_stream(server, "/prices?last_event_id=earliest") as stream:
            first = [json.loads(stream.next().data or "")["worker"] for _ in range(3)]
            (publisher,) = set(first)
            assert publisher in workers
        os.kill(publisher, signal.SIGKILL)
        with open_stream(server, "/prices?last_event_id=earliest") as stream:
            seen = [json.loads(stream.next().data or "")["worker"] for _ in range(3)]
            while len(set(seen)) == 1:
                seen.append(json.loads(stream.next().data or "")["worker"])
            seen += [json.loads(stream.next().data or "")["worker"] for _ in range(2)]
        assert len(set(seen)) == 2
        assert seen == sorted(seen, key=lambda pid: pid != publisher), "never two in turns"


def programs(server: Server) -> list[psutil.Process]:
    """What the server's only worker has started."""
    (worker,) = server.workers()
    return worker.children()


def test_a_tail_dies_with_its_viewer(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("".join(f"line {number}\n" for number in range(20)))
    with example("log_tail", "gunicorn", tmp_path, changes={"LOG_FILE": str(log)}) as server:
        with open_stream(server, "/log") as one, open_stream(server, "/log") as two:
            assert one.data(10) == two.data(10) == [f"line {number}" for number in range(10, 20)]
            assert len(programs(server)) == 2
            with log.open("a") as file:
                file.write("more: ä\n")
            assert one.data(1) == two.data(1) == ["more: ä"]
        # No line comes any more.
        until(lambda: not programs(server), "both have ended")
        with open_stream(server, "/log") as stream:
            stream.data(10)
            (last,) = programs(server)
            server.interrupt()
            server.wait_until_ended()
            until(lambda: not last.is_running(), "it has ended with its server")


def test_a_program_that_notices_nothing_dies_with_its_viewer(tmp_path: Path) -> None:
    """GNU's tail would end by itself."""
    program = tmp_path / "bin" / "tail"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho begun\nexec sleep 1000\n")
    program.chmod(0o755)
    path = f"{program.parent}:{os.environ['PATH']}"
    changes = {"LOG_FILE": "a.log", "PATH": path}
    with example("log_tail", "gunicorn", tmp_path, changes=changes) as server:
        with open_stream(server, "/log") as stream:
            assert stream.data(1) == ["begun"]
            assert len(programs(server)) == 1
        until(lambda: not programs(server), "it has ended")
