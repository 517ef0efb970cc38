"""What a run has of the request that began it: what it reads, and what raises at once."""

from __future__ import annotations

import io
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import (
    Flask,
    Request,
    after_this_request,
    copy_current_request_context,
    flash,
    g,
    get_flashed_messages,
    has_app_context,
    has_request_context,
    request,
    session,
)
from flask.sessions import SessionInterface, SessionMixin
from flask.testing import FlaskClient
from werkzeug.datastructures import CallbackDict

from sseflask.flask_context import lasting_context

Late = Callable[[], Any]


class ServerSideSession(CallbackDict[str, Any], SessionMixin):
    """As Flask-Session's: its content notices a change by a callback."""

    def __init__(self, initial: dict[str, Any], sid: str) -> None:
        def on_update(changed: Any) -> None:
            changed.modified = True

        super().__init__(initial, on_update)
        self.sid = sid
        self.modified = False


class MappingSession(SessionMixin):
    """One that is no dict, as some of stores are."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data

    def __getitem__(self, name: str) -> Any:
        return self.data[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self.data[name] = value

    def __delitem__(self, name: str) -> None:
        del self.data[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.data)

    def __len__(self) -> int:
        return len(self.data)


class Sessions(SessionInterface):
    def __init__(self, make: Callable[[dict[str, Any]], SessionMixin]) -> None:
        self.make = make

    def open_session(self, app: Flask, request: Request) -> SessionMixin:  # noqa: ARG002
        return self.make({"user": "Li"})

    def save_session(self, app: Flask, session: Any, response: Any) -> None: ...


class OwnRequest(Request):
    @property
    def tenant(self) -> str:
        return self.headers.get("X-Tenant", "")


class Kept:
    """An application whose view gives what a run would enter its contexts with."""

    def __init__(self) -> None:
        self.app = app = Flask(__name__)
        app.secret_key = "secret"
        app.request_class = OwnRequest
        self.in_view: Late = lambda: None
        self.enter: Any = None

        @app.route("/", methods=["GET", "POST"])
        def view() -> str:
            self.in_view()
            self.enter = lasting_context(app)
            return "answered"

    def ask(self, **asked: Any) -> Kept:
        client: FlaskClient = self.app.test_client()
        assert client.open("/", **asked).text == "answered"
        return self

    def late(self, do: Late) -> Any:
        """Done by the run, after the request."""
        with self.enter():
            return do()


@pytest.fixture
def kept() -> Kept:
    return Kept()


def change() -> None:
    session["user"] = "other"


def forget() -> None:
    del session["user"]


def mark() -> None:
    session.modified = True


CHANGES: list[Late] = [
    change,
    forget,
    mark,
    lambda: session.pop("user"),
    lambda: session.popitem(),
    lambda: session.update(a=1),
    lambda: session.setdefault("a", 1),
    lambda: session.clear(),
    lambda: flash("hello"),
]


@pytest.mark.parametrize(
    "make",
    [
        None,
        lambda data: ServerSideSession(data, secrets.token_hex(4)),
        MappingSession,
    ],
    ids=["cookie", "callbacks", "mapping"],
)
def test_a_session_is_read_and_can_not_be_changed(kept: Kept, make: Any) -> None:
    if make is not None:
        kept.app.session_interface = Sessions(make)
    kept.in_view = change
    kept.ask()
    for each in CHANGES:
        with pytest.raises(RuntimeError, match="session can't be changed"):
            kept.late(each)
    assert kept.late(lambda: (session["user"], dict(session), len(session), "a" in session)) == (
        "other",
        {"user": "other"},
        1,
        False,
    )
    assert kept.late(lambda: isinstance(session._get_current_object(), SessionMixin))  # type: ignore[attr-defined]


def test_flashed_messages_are_the_views(kept: Kept) -> None:
    """To read them is to take them out of the session."""
    kept.in_view = lambda: flash("hello")
    with pytest.raises(RuntimeError, match="session can't be changed"):
        kept.ask().late(get_flashed_messages)


def test_without_a_secret_key_there_is_no_session(kept: Kept) -> None:
    kept.app.secret_key = None
    with pytest.raises(RuntimeError, match="secret key"):
        kept.ask().late(change)
    assert kept.late(lambda: session.get("user")) is None


def test_a_function_after_the_request_has_no_effect(kept: Kept) -> None:
    with pytest.raises(RuntimeError, match="after_this_request"):
        kept.ask().late(lambda: after_this_request(lambda response: response))


def test_the_request_is_of_its_own_class(kept: Kept) -> None:
    kept.ask(headers={"X-Tenant": "t"})
    assert kept.late(lambda: (request.tenant, request.path)) == ("t", "/")  # type: ignore[attr-defined]


def body() -> bytes:
    return request.get_data()


BODY: dict[str, Any] = {"method": "POST", "data": b'{"n": 1}', "content_type": "application/json"}


@pytest.mark.parametrize("in_view", [lambda: None, lambda: request.get_json()])
def test_a_small_body_is_there(kept: Kept, in_view: Late) -> None:
    kept.in_view = in_view
    kept.ask(**BODY)
    assert kept.late(lambda: (request.get_json(), request.get_data())) == ({"n": 1}, b'{"n": 1}')


@pytest.mark.parametrize("size", [1 << 20, (1 << 20) + 1])
def test_a_large_body_is_not(kept: Kept, size: int) -> None:
    kept.ask(method="POST", data=b"x" * size)
    if size <= 1 << 20:
        assert len(kept.late(body)) == size
        return
    for read in (body, lambda: request.stream.read()):
        with pytest.raises(RuntimeError, match="body can't be read"):
            kept.late(read)


def test_a_body_that_the_view_has_begun_to_read(kept: Kept) -> None:
    kept.in_view = lambda: request.stream.read(2)
    kept.ask(**BODY)
    with pytest.raises(RuntimeError, match="body can't be read"):
        kept.late(body)


def test_a_body_without_a_length(kept: Kept) -> None:
    """It may be of any size, and come slowly: it is not read for the run, and is not empty."""
    environ = {"wsgi.input_terminated": True, "wsgi.input": io.BytesIO(b"chunks")}
    asked = {"method": "POST", "environ_overrides": environ}
    kept.ask(**asked, headers={"Transfer-Encoding": "chunked"})
    with pytest.raises(RuntimeError, match="body can't be read"):
        kept.late(body)
    kept.in_view = body
    kept.ask(**asked, headers={"Transfer-Encoding": "chunked"})
    assert kept.late(body) == b"chunks"


def test_a_request_without_a_body(kept: Kept) -> None:
    kept.ask(environ_overrides={"wsgi.input_terminated": True, "wsgi.input": io.BytesIO()})
    assert kept.late(lambda: (request.get_data(), dict(request.form), dict(request.files))) == (
        b"",
        {},
        {},
    )


def upload() -> dict[str, Any]:
    return {"method": "POST", "data": {"name": "n", "file": (io.BytesIO(b"content"), "f.txt")}}


READS: list[Late] = [
    lambda: request.files["file"],
    lambda: request.files.get("file"),
    lambda: "file" in request.files,
    lambda: list(request.files.items()),
]


def test_files_that_the_view_has_seen_are_the_views(kept: Kept) -> None:
    """They are closed with its request; and the run's end does not close them before."""
    kept.in_view = lambda: request.files["file"]
    kept.ask(**upload())
    for read in READS:
        with pytest.raises(RuntimeError, match="files can't be read"):
            kept.late(read)
    assert kept.late(lambda: request.form["name"]) == "n"


def test_the_end_of_a_run_leaves_the_views_files_open(kept: Kept) -> None:
    read: list[bytes] = []

    @kept.app.post("/both")
    def both() -> str:
        assert request.files["file"]
        with lasting_context(kept.app)():
            pass  # such as a run that is over at once
        read.append(request.files["file"].read())
        return ""

    kept.app.test_client().post("/both", data=upload()["data"])
    assert read == [b"content"]


def test_small_files_that_nobody_has_seen_are_the_runs(kept: Kept) -> None:
    kept.ask(**upload())
    assert kept.late(lambda: request.files["file"].read()) == b"content"


class Connection:
    def close(self) -> None: ...


class Session:
    def __enter__(self) -> None: ...

    def __exit__(self, *_error: object) -> None: ...


def test_g_is_what_it_was_without_what_is_closed(kept: Kept) -> None:
    def fill() -> None:
        g.user, g.database, g.session, g.file = "Li", Connection(), Session(), io.BytesIO()

    kept.in_view = fill
    kept.ask()
    assert kept.late(lambda: dict(vars(g._get_current_object()))) == {"user": "Li"}


def test_the_context_is_copied_for_others(kept: Kept) -> None:
    def copied() -> Any:
        with pytest.raises(RuntimeError, match="session can't be changed"):
            copy_current_request_context(change)()
        return copy_current_request_context(lambda: (request.path, session["user"]))()

    kept.in_view = change
    assert kept.ask().late(copied) == ("/", "other")


def test_without_a_request_it_is_the_applications_context(kept: Kept) -> None:
    kept.enter = lasting_context(kept.app)
    assert kept.late(has_app_context)
    assert not kept.late(has_request_context)
    with pytest.raises(RuntimeError, match="outside of request context"):
        kept.late(lambda: request.path)
