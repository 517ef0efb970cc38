"""The front door answers as the route does, and leaves to Flask what it does not answer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest
from flask import (
    Flask,
    Response,
    appcontext_popped,
    appcontext_pushed,
    appcontext_tearing_down,
    request_started,
)
from werkzeug.datastructures import Headers
from werkzeug.test import EnvironBuilder, run_wsgi_app

from sseflask.auth.tokens import sign
from sseflask.extension import channels_of
from sseflask.routes.front_door import FrontDoor
from sseflask.transport.gunicorn.server_response import KEY, ServerResponse
from tests.service import SECRET, service

TOKEN = sign(SECRET, "someone", time.time() + 86_400, subscribe=["private.*"])
WRONG = sign("another secret that is long enough for this", "someone", time.time() + 86_400)
OLD = sign(SECRET, "someone", time.time() - 100, subscribe=["private.*"])
EVENT_SOURCE = {"Accept": "text/event-stream", "Cache-Control": "no-cache"}


@pytest.fixture
def app() -> Iterator[Flask]:
    with service(SSEFLASK_SECRET=SECRET, SSEFLASK_PUBLIC_CHANNELS="news.*") as made:
        channels_of(made).publish("news.a", [b"data: stored\n\n"])
        yield made


class Answers:
    """What a client gets through the door, and from the route behind it."""

    def __init__(self, app: Flask, path: str, headers: dict[str, str], method: str) -> None:
        door: Any = app.wsgi_app
        assert isinstance(door, FrontDoor)
        self.by_route = False
        flask: Any = door._flask

        def noticed(environ: Any, start_response: Any) -> Any:
            self.by_route = True
            return flask(environ, start_response)

        door._flask = noticed
        try:
            self.ours = self._answer(door, path, headers, method)
        finally:
            door._flask = flask
        self.routes = self._answer(flask, path, headers, method)

    def _answer(self, application: Any, path: str, headers: dict[str, str], method: str) -> Any:
        environ = EnvironBuilder(path, headers=Headers(headers), method=method).get_environ()
        for name in ("CONTENT_LENGTH", "CONTENT_TYPE"):  # no server sets them for nothing
            environ.pop(name, None)
        environ[KEY] = ServerResponse(None)
        body, status, answered = run_wsgi_app(application, environ)
        # Of a stream what comes at once: what was stored, or where an EventSource begins.
        pieces = 2 if "Last-Event-ID" in headers else 1 if "Accept" in headers else 0
        found = b"".join(body if not status.startswith("200") else islice(body, pieces))
        body.close()  # type: ignore[attr-defined]  # werkzeug gives an iterator that has it
        names = sorted((name, value) for name, value in answered if name != "X-Request-Id")
        return status, names, found


ANSWERED: list[tuple[str, dict[str, str]]] = [
    ("/channels/news.a", {}),
    ("/channels/news.*", EVENT_SOURCE),
    ("/channels/news.a", {"Last-Event-ID": "nonsense"}),
    ("/channels/news.a", {"X-Request-Id": "mine", "Cookie": "theme=dark"}),
    ("/channels/news.a", {"Sec-Fetch-Site": "cross-site"}),
    ("/channels/news.a", {"Authorization": f"Bearer {TOKEN}"}),
    ("/channels/private.a", {"Authorization": f"bearer {TOKEN}"}),
    (f"/channels/private.a?access_token={TOKEN}", EVENT_SOURCE),
]

LEFT: list[tuple[str, dict[str, str]]] = [
    ("/channels/private.a", {}),
    ("/channels/other", {"Authorization": f"Bearer {TOKEN}"}),
    ("/channels/news.a", {"Authorization": f"Bearer {WRONG}"}),
    ("/channels/news.a", {"Authorization": "Bearer \xe9"}),
    ("/channels/news.a", {"Authorization": "Basic dTpw"}),
    ("/channels/private.a", {"Authorization": f"Bearer {OLD}"}),
    (f"/channels/private.a?access_token={TOKEN}", {"Authorization": f"Bearer {TOKEN}"}),
    (f"/channels/private.a?access_token={TOKEN}&access_token={TOKEN}", {}),
    ("/channels/news.a?access_token=", {}),
    ("/channels/news.a?until=message", {}),
    ("/channels/news.a?last_event_id=earliest", {}),
    ("/channels/news.a", {"Cookie": f"sseflask_session={TOKEN}"}),
    ("/channels/news.a", {"Last-Event-ID": "\xe9"}),
    ("/channels/news.a", {"Transfer-Encoding": "chunked"}),
    ("/channels/news.a", {"Upgrade": "websocket", "Connection": "Upgrade"}),
    ("/channels/news.a", {"Host": "a b"}),
    ("/channels/no%20name", {}),
    ("/channels/news/a", {}),
    ("/channels/", {}),
    ("/channels?c=news.a", {}),
    ("/healthz", {}),
]


@pytest.mark.parametrize(("path", "headers"), ANSWERED)
def test_the_door_answers_as_the_route(app: Flask, path: str, headers: dict[str, str]) -> None:
    answers = Answers(app, path, headers, "GET")
    assert not answers.by_route
    assert answers.ours[0] == "200 OK"
    assert answers.ours == answers.routes


@pytest.mark.parametrize(("path", "headers"), LEFT)
def test_all_else_is_the_routes(app: Flask, path: str, headers: dict[str, str]) -> None:
    assert Answers(app, path, headers, "GET").by_route


@pytest.mark.parametrize("method", ["HEAD", "POST", "OPTIONS", "DELETE"])
def test_other_methods_are_the_routes(app: Flask, method: str) -> None:
    assert Answers(app, "/channels/news.a", {}, method).by_route


def test_a_client_that_resumes_gets_what_it_has_missed(app: Flask) -> None:
    channels = channels_of(app)
    ids = channels.publish("news.a", [b"data: 1\n\n"])
    assert isinstance(ids, list)
    channels.publish("news.a", [b"data: 2\n\n"])
    answers = Answers(app, "/channels/news.a", {"Last-Event-ID": ids[0]}, "GET")
    assert not answers.by_route
    assert answers.ours == answers.routes
    assert b"data: 2\n" in answers.ours[2]
    assert b"data: 1\n" not in answers.ours[2]


def test_the_applications_settings_count(app: Flask) -> None:
    app.config["SSEFLASK_HEARTBEAT"] = "never"  # refused when the stream begins
    answers = Answers(app, "/channels/news.a", {}, "GET")
    assert not answers.by_route
    assert answers.ours[0] == answers.routes[0]
    assert str(answers.ours[0]).startswith("500")


def test_other_servers_go_to_flask(app: Flask) -> None:
    environ = EnvironBuilder("/channels/news.a").get_environ()
    body, status, _ = run_wsgi_app(app.wsgi_app, environ)
    body.close()  # type: ignore[attr-defined]  # werkzeug gives an iterator that has it
    assert status == "200 OK"
    door: Any = app.wsgi_app
    assert door._is_open is None, "it has not looked"


@pytest.mark.parametrize("kind", ["before", "after", "teardown", "context", "error", "values"])
def test_hooks_that_were_added_get_all_requests(app: Flask, kind: str) -> None:
    def hook(*arguments: Any) -> Any:
        return arguments[0] if kind == "after" else None

    added: Any = {
        "before": app.before_request,
        "after": app.after_request,
        "teardown": app.teardown_request,
        "context": app.teardown_appcontext,
        "error": app.errorhandler(418),
        "values": app.url_value_preprocessor,
    }[kind]
    added(hook)
    assert Answers(app, "/channels/news.a", {}, "GET").by_route


def test_a_route_that_was_added_is_asked(app: Flask) -> None:
    app.add_url_rule("/channels/news.a", "own", lambda: "mine")
    answers = Answers(app, "/channels/news.a", {"Accept": "text/plain"}, "GET")
    assert (answers.by_route, answers.ours[2]) == (True, b"mine")


def test_flask_knows_which_hosts_are_trusted(app: Flask) -> None:
    app.config["TRUSTED_HOSTS"] = [".example"]  # Flask 3.1 or newer refuses others
    answers = Answers(app, "/channels/news.a", {"Host": "a.test"}, "GET")
    assert answers.by_route
    assert answers.ours == answers.routes


@pytest.mark.parametrize(
    "signal", [request_started, appcontext_pushed, appcontext_popped, appcontext_tearing_down]
)
def test_who_listens_to_flasks_signals_hears_all_requests(app: Flask, signal: Any) -> None:
    heard: list[str] = []

    def listener(_sender: Flask, **_: Any) -> None:
        heard.append("request")

    with signal.connected_to(listener):
        assert Answers(app, "/channels/news.a", {}, "GET").by_route
    assert heard == ["request"] * 2
    assert not Answers(app, "/channels/news.a", {}, "GET").by_route


def test_pages_of_other_origins_are_flasks() -> None:
    with service(SSEFLASK_CORS_ORIGINS="https://a.example") as app:
        assert not isinstance(app.wsgi_app, FrontDoor)


def test_a_store_that_is_away_is_the_routes_to_report(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sseflask.store.api import StoreError

    door: Any = app.wsgi_app

    def fails(*_: Any, **__: Any) -> Response:
        raise StoreError("away")

    monkeypatch.setattr(door._channels, "subscribe", fails)
    answers = Answers(app, "/channels/news.a", {}, "GET")
    assert answers.by_route
    assert answers.ours[0].startswith("503 ")
