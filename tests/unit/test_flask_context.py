"""Flask's contexts around a stream: what the view's request has, when it ends, and errors in it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask, Response, abort, g, got_request_exception, request, session
from flask.typing import ResponseReturnValue

from sseflask import SSE, EventSourceResponse, Failure
from sseflask.logs import once as once
from sseflask.testing import open_stream

plain_and_ours = pytest.mark.parametrize("plain", [True, False], ids=["upgraded", "response"])


def respond(events: Iterator[str], plain: bool) -> Response:
    if plain:
        return Response(events, mimetype="text/event-stream")
    return EventSourceResponse(events)


class Noted:
    """An application whose hooks note what they see."""

    def __init__(self, plain: bool = False) -> None:
        self.app = app = Flask(__name__)
        app.secret_key = "secret"
        SSE(app)
        self.seen: list[str] = []

        @app.before_request
        def begin() -> None:
            g.start = request.path

        @app.after_request
        def answered(response: Response) -> Response:
            response.headers["X-Start"] = g.start
            return response

        @app.teardown_request
        def torn_down(error: BaseException | None) -> None:
            self.seen.append(f"teardown_request {g.start} {error!r}")

        @app.teardown_appcontext
        def released(error: BaseException | None) -> None:
            resource = g.pop("resource", None)
            self.seen.append(f"teardown_appcontext {resource} {error!r}")

        @app.get("/<what>")
        def view(what: str) -> ResponseReturnValue:
            session["user"] = "Li"
            g.resource = "the view's"

            def events() -> Iterator[str]:
                self.seen.append("begins")
                if what == "refused":
                    abort(403)
                if what == "broken":
                    raise ArithmeticError("early")
                if what == "failed":
                    raise Failure("no", status=409, code="no")
                if not plain:
                    g.resource = "the generator's"
                yield "data: 0\n\n" if plain else "0"
                if what == "later":
                    raise ArithmeticError("later")
                if not plain:
                    yield f"{g.resource} {g.start} {session['user']}"

            return respond(events(), plain)


@plain_and_ours
@pytest.mark.parametrize(
    ("what", "status"), [("refused", 403), ("broken", 500), ("failed", 409), ("missing/x", 404)]
)
def test_an_error_before_the_first_event_has_the_requests_own_g(
    plain: bool, what: str, status: int
) -> None:
    noted = Noted(plain)
    response = noted.app.test_client().get(f"/{what}")
    assert response.status_code == status
    assert response.headers["X-Start"] == f"/{what}"
    if what != "missing/x":
        assert "session=" in response.headers["Set-Cookie"], "what the view has put into it"
    seen = [each for each in noted.seen if each.startswith("teardown_request")]
    if plain:
        error = "ArithmeticError('early')" if what == "broken" else "None"
        assert seen == [f"teardown_request /{what} {error}"]


@plain_and_ours
def test_an_unexpected_error_before_the_first_event_is_reported_once(
    plain: bool, caplog: pytest.LogCaptureFixture
) -> None:
    noted = Noted(plain)
    seen: list[Any] = []

    def receive(_: Flask, exception: Exception) -> None:
        seen.append((str(exception), g.start))

    with got_request_exception.connected_to(receive, noted.app):
        assert noted.app.test_client().get("/broken").status_code == 500
    assert seen == [("early", "/broken")]
    assert [record.message for record in caplog.records] == ["Exception on /broken [GET]"]


@plain_and_ours
def test_an_error_is_raised_where_the_application_propagates_them(plain: bool) -> None:
    noted = Noted(plain)
    noted.app.testing = True
    with pytest.raises(ArithmeticError, match="early"):
        noted.app.test_client().get("/broken")
    assert noted.app.test_client().get("/refused").status_code == 403


def test_an_error_later_is_signalled_before_it_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """An error reporter that gets both takes the log record for a repetition."""
    noted = Noted()
    logged_before: list[int] = []

    def receive(_: Flask, exception: Exception) -> None:
        assert str(exception) == "later"
        logged_before.append(len(caplog.records))

    with (
        caplog.at_level(logging.ERROR),
        got_request_exception.connected_to(receive, noted.app),
        open_stream(noted.app.test_client(), "/later") as stream,
    ):
        assert [event.event for event in stream.events()] == ["message", "failure"]
    assert logged_before == [0]
    assert len(caplog.records) == 1


def test_what_the_view_has_used_is_released_before_the_stream_begins() -> None:
    """What the generator opens stays open, although the view's context has ended."""
    noted = Noted()
    with open_stream(noted.app.test_client(), "/finite") as stream:
        begins = noted.seen.index("begins")
        assert noted.seen[:begins] == ["teardown_appcontext the view's None"]
        assert [event.data for event in stream.read(1)] == ["0"]
        assert [event.data for event in stream.events()] == ["the generator's /finite Li"]
    assert "teardown_appcontext the generator's None" in noted.seen[begins:]


def test_a_context_that_ended_leaves_nothing_behind() -> None:
    noted = Noted()
    client = noted.app.test_client()
    with open_stream(client, "/finite") as one, open_stream(client, "/finite") as other:
        assert not request, "neither stream has left its context to the test"
        assert len(one.read(9)) == len(other.read(9)) == 2


# -- reading a stream as a whole -----------------------------------------------------------------


def reading(how: str, what: Any) -> Any:
    return {
        "get_data": lambda: what.get_data(),
        "data": lambda: what.data,
        "as_text": lambda: what.get_data(as_text=True),
        "json": lambda: what.get_json(force=True),
        "freeze": what.freeze,
        "add_etag": what.add_etag,
        "iter_encoded": lambda: list(what.iter_encoded()),
        "response": lambda: list(what.response),
        "make_sequence": what.make_sequence,
        "stream": lambda: what.stream.write(b"more"),
    }[how]()


WAYS = ["get_data", "data", "as_text", "json", "freeze", "add_etag", "stream"]
ALL_WAYS = [*WAYS, "iter_encoded", "response", "make_sequence"]


def logging_app(how: str, sse_first: bool = True) -> Flask:
    """Its hook reads the body of every response, as loggers do."""
    app = Flask(__name__)
    app.config["SSEFLASK_CHANNEL_LOG"] = ":memory:"
    sse = SSE()
    if sse_first:
        sse.init_app(app)

    @app.after_request
    def read(response: Response) -> Response:
        if response.mimetype == "text/event-stream":
            reading(how, response)
        return response

    @app.get("/subscribe")
    def subscribe() -> ResponseReturnValue:
        return sse.subscribe("news")

    @app.get("/generator")
    def generator() -> ResponseReturnValue:
        return EventSourceResponse(str(n) for n in range(3))

    @app.get("/list")
    def of_a_list() -> ResponseReturnValue:
        return EventSourceResponse(["0", "1"])

    @app.get("/plain")
    def plain() -> ResponseReturnValue:
        pieces = (f"data: {n}\n\n" for n in range(3))
        return Response(pieces, mimetype="text/event-stream")

    if not sse_first:
        sse.init_app(app)
    return app


@pytest.mark.parametrize(
    ("path", "how"),
    [
        *(("/subscribe", how) for how in ALL_WAYS),
        *(("/generator", how) for how in WAYS),
    ],
)
def test_reading_a_stream_as_a_whole_is_an_error_at_once(
    path: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    answer = logging_app(how).test_client().get(path)
    assert answer.status_code == 500
    (raised,) = [str(record.exc_info[1]) for record in caplog.records if record.exc_info]
    assert "is_streamed" in raised or how == "stream"


@pytest.mark.parametrize("path", ["/subscribe", "/generator"])
def test_what_can_do_without_the_body_works(path: str) -> None:
    app = logging_app("get_data")
    app.after_request_funcs[None].pop()

    @app.after_request
    def measured(response: Response) -> Any:
        assert response.calculate_content_length() is None
        assert response.is_streamed
        return response.make_conditional(request)

    with open_stream(app.test_client(), path) as stream:
        assert stream.response.status_code == 200


def test_a_list_can_be_read() -> None:
    app = logging_app("get_data")
    assert app.test_client().get("/list").data == b"data: 0\n\ndata: 1\n\n"
    assert EventSourceResponse(["a"]).get_data(as_text=True) == "data: a\n\n"
    assert list(EventSourceResponse(str(n) for n in range(2)).iter_encoded()) == [
        b"data: 0\n\n",
        b"data: 1\n\n",
    ]


@pytest.mark.parametrize("sse_first", [True, False])
def test_a_plain_response_is_read_as_flask_does_it(
    sse_first: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever hook comes first; once it is known to be a stream, the log says so."""
    monkeypatch.setattr(once, "_warned", set())
    client = logging_app("get_data", sse_first).test_client()
    for _ in range(2):
        assert client.get("/plain").data == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"
    seen = [record.message for record in caplog.records if "is_streamed" in record.message]
    assert len(seen) == (0 if sse_first else 1)


def test_the_test_client_reads_finite_streams() -> None:
    app = logging_app("get_data")
    app.after_request_funcs[None].pop()
    client = app.test_client()
    assert client.get("/generator").data == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"
    assert client.get("/plain").data == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"


# -- compressed in the application ---------------------------------------------------------------


def test_what_a_hook_has_compressed_is_sent_as_it_is() -> None:
    """No heartbeat, no event of ours within it."""
    app = Flask(__name__)
    SSE(app)

    @app.after_request
    def compressed(response: Response) -> Response:
        chunks = response.iter_encoded()
        response.response = (b"<" + chunk + b">" for chunk in chunks)
        response.headers["Content-Encoding"] = "brackets"
        return response

    @app.get("/")
    def view() -> ResponseReturnValue:
        return EventSourceResponse(json.dumps(n) for n in range(2))

    response = app.test_client().get("/")
    assert response.headers["Content-Encoding"] == "brackets"
    assert response.data == b"<data: 0\n\n><data: 1\n\n>"
