"""`SSE.run` and its companions in an application, through Flask's test client."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask, Response, abort, request
from werkzeug.test import TestResponse

from sseflask import SSE, Failure
from sseflask.errors import SHOULD_RETRY
from sseflask.event import Event
from sseflask.extension import runs_of
from sseflask.runs import item_run
from sseflask.runs.run_result import RunEvent
from sseflask.runs.successor import Successor, go_on
from sseflask.runs.viewer import Viewer
from sseflask.runs.writer import Terms
from sseflask.store.run_api import Run
from sseflask.testing import ClientStream, open_stream

SECONDS = 10.0

View = Callable[[], Response]


class Place:
    """An application with runs; its view is what a test says."""

    def __init__(self) -> None:
        self.app = app = Flask(__name__)
        app.testing = True
        app.secret_key = "secret"
        self.sse = SSE(app)
        self.view: View = lambda: self.sse.run(iter(["a", "b"]))

        @app.route("/run", methods=["GET", "POST"])
        def run() -> Response:
            return self.view()

        @app.route("/other", methods=["POST"], endpoint="other")
        def other() -> Response:
            return self.view()

        @app.get("/attach/<run_id>")
        def attach(run_id: str) -> Response:
            return self.sse.attach(
                run_id,
                owner=request.args.get("owner"),
                heartbeat=request.args.get("heartbeat", type=float),
            )

    def ask(self, path: str = "/run", method: str = "POST", **asked: Any) -> TestResponse:
        return self.app.test_client().open(path, method=method, **asked)

    def stream(
        self, path: str = "/run", method: str = "POST", **asked: Any
    ) -> contextlib.AbstractContextManager[ClientStream]:
        return open_stream(self.app.test_client(), path, method=method, **asked)

    def all_of(self, path: str = "/run", method: str = "POST", **asked: Any) -> list[str]:
        with self.stream(path, method, **asked) as stream:
            return [event.data for event in stream.events()]

    def run(self, **asked: Any) -> str:
        """The id of a run that is over."""
        with self.stream(**asked) as stream:
            list(stream.events())
            return stream.response.headers["X-Run-Id"]


@pytest.fixture
def place() -> Iterator[Place]:
    made = Place()
    yield made
    runs_of(made.app).close()


def code_of(response: TestResponse) -> str:
    code: str = response.get_json()["error"]["code"]
    return code


DONE = '{"status":"finished","result":null}'


def test_a_run_and_who_comes_back(place: Place) -> None:
    with place.stream() as stream:
        events = list(stream.events())
        run = stream.response.headers["X-Run-Id"]
    assert [(event.event, event.data) for event in events] == [
        ("message", "a"),
        ("message", "b"),
        ("done", DONE),
    ]
    ids = [event.last_event_id for event in events]
    assert ids == [f"{run}.{n}" for n in (1, 2, 3)]
    assert place.all_of(headers={"Last-Event-ID": ids[0]}) == ["b", DONE], "nothing is run again"
    for path in ("/run", f"/attach/{run}"):
        ended = place.ask(path, "GET", headers={"Last-Event-ID": ids[2]})
        assert (ended.status_code, ended.headers["X-Run-Id"]) == (204, run)
        assert "no-store" in ended.headers["Cache-Control"]
    assert place.all_of(f"/attach/{run}", "GET", headers={"Last-Event-ID": f"{run}.0"}) == [
        *("a", "b", DONE)
    ]


def test_who_comes_back_has_nothing_copied(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """All clients do after a deploy: the contexts are for a run that begins."""
    run = place.run()

    def copied(_app: Flask) -> Any:
        raise AssertionError("the contexts were copied")

    monkeypatch.setattr(item_run, "lasting_context", copied)
    back = place.ask(headers={"Last-Event-ID": f"{run}.1"})
    assert (back.status_code, back.headers["X-Run-Id"]) == (200, run)
    assert place.ask(method="GET", headers={"Sec-Purpose": "prefetch"}).status_code == 204
    with pytest.raises(AssertionError, match="copied"):
        place.ask()


def test_cursors_that_are_no_place_of_the_run(place: Place) -> None:
    run, other = place.run(), place.run()
    for cursor, path, status in [
        ("nonsense", "/run", 400),
        (f"{run}.9", "/run", 400),
        (f"{run}.01", "/run", 400),
        (f"{'0' * 32}.1", "/run", 404),
        (f"{run}.1", f"/attach/{other}", 400),
        (f"{run}.4", f"/attach/{run}", 400),
    ]:
        answer = place.ask(path, "GET", headers={"Last-Event-ID": cursor})
        assert answer.status_code == status, cursor
        assert answer.get_json()["error"]["param"] == "Last-Event-ID"


def test_a_client_that_does_not_reconnect_begins_anew(place: Place) -> None:
    run = place.run()
    place.view = lambda: place.sse.run(iter(["new"]), reconnects=False)
    assert place.all_of(headers={"Last-Event-ID": f"{run}.1"}) == ["new", DONE]


def viewer_of(response: Any) -> Viewer:
    viewer = response.response
    assert isinstance(viewer, Viewer)
    return viewer


def test_what_a_client_may_do_again(place: Place) -> None:
    """A response says so if the server can't send it; and only who comes back is sent away."""
    with place.app.test_request_context("/run", method="POST"):
        with place.sse.run(iter("a"), lifetime=5) as once:
            assert viewer_of(once).refusal().headers[SHOULD_RETRY] == "false"
            assert vars(once)["_lifetime"] == 5
        with place.sse.run(iter("a"), idempotency_key="k", reconnects=False, lifetime=5) as named:
            assert SHOULD_RETRY not in viewer_of(named).refusal().headers
            assert vars(named)["_lifetime"] == 0


def test_no_store_gets_what_is_no_text(place: Place) -> None:
    """JSON can carry half of a character, which UTF-8 can't: a stranger may well send it."""
    with pytest.raises(ValueError, match="owner must be Unicode text"):
        place.sse.start(iter(["a"]), owner="\ud800")
    for run in ("\ud800", "é", "4" * 100_000, "\0", ""):
        with pytest.raises(Failure) as caught:
            place.sse.result(run)
        assert caught.value.code == "run_not_found"


@pytest.mark.parametrize("how", ["raises", "other", "twice"])
def test_a_response_that_is_not_sent_has_no_viewer(place: Place, how: str) -> None:
    """A run that would be cancelled without viewers does not go on for nobody."""
    closed = threading.Event()

    def endless() -> Iterator[str]:
        try:
            while not closed.wait(0.01):
                yield "x"
        finally:
            closed.set()

    def view() -> Response:
        place.sse.run(endless(), on_disconnect="cancel")
        if how == "raises":
            abort(403)
        return Response("said") if how == "other" else place.sse.run(iter(["a"]))

    place.view = view
    assert place.ask().status_code == (403 if how == "raises" else 200)
    assert closed.wait(SECONDS)


def test_another_owner_finds_nothing(place: Place) -> None:
    place.view = lambda: place.sse.run(iter(["a"]), owner=request.args["owner"])
    run = place.run(query_string={"owner": "7"})
    cursor = {"Last-Event-ID": f"{run}.1"}
    assert code_of(place.ask("/run?owner=8", headers=cursor)) == "run_not_found"
    for query in ("?owner=8", ""):
        assert place.ask(f"/attach/{run}{query}", "GET").status_code == 404
    for call in (place.sse.stop, place.sse.result):
        for owner in (None, "8"):
            with pytest.raises(Failure) as caught:
                call(run, owner=owner)
            assert caught.value.status == 404
    assert place.sse.result(run, owner=7).state == "finished", "a number is its digits"
    assert place.all_of("/run?owner=7", headers=cursor) == [DONE], "its own comes back"


@pytest.mark.parametrize("asked", [{"method": "HEAD"}, {"headers": {"Sec-Purpose": "prefetch"}}])
def test_a_guess_runs_nothing(place: Place, asked: dict[str, Any]) -> None:
    begun: list[int] = []
    place.view = lambda: place.sse.run(lambda: begun.append(1))
    answer = place.ask(**{"method": "GET", **asked})
    assert answer.status_code == (200 if "method" in asked else 204)
    assert answer.data == b""
    assert begun == []
    assert "X-Run-Id" not in answer.headers


def test_head_of_a_run_that_is_there(place: Place) -> None:
    run = place.run()
    for path, headers in ((f"/attach/{run}", {}), ("/run", {"Last-Event-ID": f"{run}.1"})):
        answer = place.ask(path, "HEAD", headers=headers)
        assert (answer.status_code, answer.headers["X-Run-Id"]) == (200, run)
        assert answer.mimetype == "text/event-stream"


def test_the_same_request_finds_its_run(place: Place) -> None:
    begun: list[int] = []

    def work() -> Iterator[str]:
        begun.append(1)
        yield "a"

    place.view = lambda: place.sse.run(work, idempotency_key="k", owner=request.args.get("owner"))
    with place.stream(data="x") as stream:
        run = stream.response.headers["X-Run-Id"]
        list(stream.events())
        assert "Idempotency-Replayed" not in stream.response.headers
    with place.stream(data="x") as stream:
        assert stream.response.headers["Idempotency-Replayed"] == "true"
        assert stream.response.headers["X-Run-Id"] == run
        assert [event.data for event in stream.events()] == ["a", DONE]
    assert code_of(place.ask(data="y")) == "idempotency_key_reused"
    assert len(begun) == 1
    assert run not in {place.run(data="x", path="/other"), place.run(query_string="owner=2")}
    assert len(begun) == 3


def test_a_key_that_is_none(place: Place) -> None:
    place.view = lambda: place.sse.run(iter("a"), idempotency_key="with space")
    assert code_of(place.ask()) == "invalid_idempotency_key"
    with pytest.raises(Failure):
        place.sse.start(iter("a"), idempotency_key="")


class Held:
    """Items that note whether they were begun and closed."""

    def __init__(self) -> None:
        self.begun = self.closed = 0

    def __iter__(self) -> Held:
        return self

    def __next__(self) -> str:
        self.begun += 1
        raise StopIteration

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize(
    "arguments",
    [
        {"heartbeat": 0},
        {"heartbeat": -1},
        {"first_byte": math.nan},
        {"lifetime": math.inf},
        {"max_bytes": -1},
        {"max_seconds": "1"},
        {"keep": math.nan},
        {"keep": True},
        {"keep": 10**400},
        {"headers": {"X-Two": "two\nlines"}},
        {"last_event_id": 5},
        {"on_disconnect": -1},
        {"on_disconnect": "stop"},
        {"on_disconnect": math.nan},
        {"on_disconnect": True},
        {"owner": ""},
        {"owner": True},
        {"owner": 1.5},
        {"format": "chunks"},
    ],
)
def test_values_that_are_not_allowed(place: Place, arguments: dict[str, Any]) -> None:
    """Nothing was run, and what it would have been made of is closed."""
    held = Held()
    place.view = lambda: place.sse.run(held, **arguments)
    with pytest.raises(ValueError, match=next(iter(arguments))):
        place.ask()
    assert (held.begun, held.closed) == (0, 1)
    assert runs_of(place.app)._process.get().live_runs.written() == []


@pytest.mark.parametrize("arguments", [{"heartbeat": 0}, {"heartbeat": -1}])
def test_a_viewer_with_a_value_that_is_not_allowed_is_none(
    place: Place, arguments: dict[str, Any]
) -> None:
    run = place.run()
    with pytest.raises(ValueError, match="heartbeat"):
        place.ask(f"/attach/{run}", "GET", query_string=arguments)


def test_a_run_that_is_stopped(place: Place) -> None:
    silent = threading.Event()
    closed = threading.Event()

    def work() -> Iterator[str]:
        try:
            yield "a"
            silent.wait(SECONDS)
            yield "b"
        finally:
            closed.set()

    run = place.sse.start(work, owner=1)
    with place.stream(f"/attach/{run}?owner=1", "GET") as stream:
        assert stream.read(1)[0].data == "a"
        assert place.sse.result(run, owner=1).state == "running"
        assert place.sse.stop(run, owner=1) == "stopped"
        silent.set()
        (end,) = stream.events()
    assert (end.event, end.data) == ("done", '{"status":"stopped"}')
    assert closed.wait(SECONDS)
    assert place.sse.stop(run, owner=1) == "stopped"
    assert place.sse.result(run, owner=1).events == [RunEvent(f"{run}.1", "message", "a")]


def test_results(place: Place) -> None:
    def work() -> Any:
        yield Event({"n": 1}, event="step", id="mine")
        return {"all": 1}

    run = place.run()
    result = place.sse.result(run)
    assert (result.id, result.state, result.value, result.error) == (run, "finished", None, None)
    place.view = lambda: place.sse.run(work)
    run = place.run()
    result = place.sse.result(run)
    assert result.value == {"all": 1}
    assert [(event.id, event.event, event.json()) for event in result.events] == [
        (f"{run}.1", "step", {"n": 1})
    ]
    assert place.sse.result(run, format="items") == result
    with pytest.raises(ValueError, match="format"):
        place.sse.result(run, format="text")


def test_a_run_that_fails_before_its_first_item_is_an_error(place: Place) -> None:
    begun: list[int] = []

    def work() -> Iterator[str]:
        if begun:
            yield "a"
        raise Failure("mine", status=418, code="mine")

    place.view = lambda: place.sse.run(work, first_byte=SECONDS)
    answer = place.ask()
    assert (answer.status_code, code_of(answer)) == (418, "mine")
    result = place.sse.result(answer.headers["X-Run-Id"])
    assert result.state == "failed"
    assert result.error is not None
    assert result.error["code"] == "mine"


def test_a_run_that_becomes_too_large(place: Place) -> None:
    place.view = lambda: place.sse.run(iter(["a" * 100] * 5), max_bytes=400)
    with place.stream() as stream:
        *items, end = stream.events()
    assert (len(items), end.event) == (2, "failure")
    assert '"run_too_large"' in end.data


def test_too_many_runs_of_an_account(place: Place) -> None:
    runs_of(place.app)._max_running = 1
    silent = threading.Event()

    def work() -> Iterator[str]:
        silent.wait(SECONDS)
        yield "a"

    def begun(owner: str | None = None, account: str | None = None) -> bool:
        try:
            place.sse.start(work, owner=owner, account=account)
        except Failure as failure:
            if failure.code != "too_many_runs":
                raise
            return False
        return True

    assert begun("a", "one")
    assert not begun("b", "one")
    assert not begun("one"), "an owner is an account, if there is no other"
    assert begun("a")
    assert [begun(), begun()] == [True, True], "runs of nobody are not counted"
    silent.set()


def test_who_sees_the_head_of_a_response_is_a_viewer(place: Place) -> None:
    """Before the response is sent: the run's last other viewer may leave at that moment."""
    silent, ended = threading.Event(), threading.Event()

    def work() -> Iterator[str]:
        yield "a"
        ended.set()
        silent.wait(SECONDS)

    run = place.sse.start(work, on_disconnect="cancel")
    assert ended.wait(SECONDS)
    with place.app.test_request_context(f"/attach/{run}"):
        response = place.sse.attach(run)
        (live,) = runs_of(place.app)._process.get().live_runs.written()
        assert live.writer is not None
        alone_since = [live.writer.alone_since]
        response.close()
        alone_since.append(live.writer.alone_since)
        assert [since is None for since in alone_since] == [True, False]
    silent.set()


def resume(_run: str, _last: RunEvent | None) -> list[str]:
    return ["again"]


def test_a_run_goes_on_though_the_secret_key_was_changed(place: Place) -> None:
    signed = Successor(resume, Terms(5.0)).encode(place.app.secret_key)
    run = Run(1, "0" * 32, "items", 0)
    place.app.secret_key = "another"
    with pytest.raises(LookupError, match="SECRET_KEY"):
        go_on(place.app, run, signed, lambda _after, _limit: [])
    place.app.config["SECRET_KEY_FALLBACKS"] = ["older", "secret"]
    terms, _ = go_on(place.app, run, signed, lambda _after, _limit: [])
    assert terms == Terms(5.0)


def test_how_to_go_on_is_checked_before_anything_is_run(place: Place) -> None:
    with pytest.raises(TypeError, match="top level"):
        place.sse.start(iter("a"), resume=lambda _run, _last: iter("b"))
    assert place.sse.start(iter("a"), resume=resume)
