"""What may be yielded, and the error for anything else."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from flask import Flask, Response, stream_with_context

import sseflask
from sseflask import SSE, ChannelError, Comment, Event, EventError, EventSourceResponse
from sseflask.logs import once as notices

EVENT_STREAM = "text/event-stream"


def make_app(view: Callable[[], Any]) -> Flask:
    app = Flask(__name__)
    SSE(app)
    app.testing = True
    app.add_url_rule("/", view_func=view)
    return app


def body(view: Callable[[], Any]) -> bytes:
    response = make_app(view).test_client().get("/")
    assert response.status_code == 200
    return response.get_data()


async def asynchronous() -> AsyncIterator[str]:
    yield "a"


async def coroutine() -> str:
    return "a"


def generator() -> Iterator[str]:
    yield "a"


def test_a_plain_response_takes_events() -> None:
    def events() -> Iterator[Any]:
        yield Event({"a": 1}, id=1)
        yield "data: text\n\n"
        yield Comment("a remark")
        yield bytearray(b"data: bytes\n\n")
        yield memoryview(b"data: more\n\n")

    sent = b'id: 1\ndata: {"a":1}\n\ndata: text\n\n: a remark\ndata: bytes\n\ndata: more\n\n'
    assert body(lambda: Response(events(), mimetype=EVENT_STREAM)) == sent
    assert body(lambda: Response(stream_with_context(events()), mimetype=EVENT_STREAM)) == sent
    assert body(lambda: Response(list(events()), mimetype=EVENT_STREAM)) == sent
    assert body(lambda: Response(tuple(events()), mimetype=EVENT_STREAM)) == sent


@pytest.mark.parametrize(
    "piece", [None, 5, {"a": 1}, ("a", "b"), object()], ids=lambda piece: type(piece).__name__
)
def test_what_a_plain_response_cannot_send(piece: Any) -> None:
    app = make_app(lambda: Response(iter([piece]), mimetype=EVENT_STREAM))
    with pytest.raises(EventError, match=f"{type(piece).__name__}: yield text or bytes"):
        app.test_client().get("/")


@pytest.mark.parametrize(
    ("item", "sent"),
    [
        (None, b"data: null\n\n"),
        (("a", 1), b'data: ["a",1]\n\n'),
        (bytearray(b"data: x\n\n"), b"data: x\n\n"),
        (memoryview(b"data: x\n\n"), b"data: x\n\n"),
    ],
    ids=["none", "tuple", "bytearray", "memoryview"],
)
def test_what_is_sent(item: Any, sent: bytes) -> None:
    assert body(lambda: EventSourceResponse(iter([item]))) == sent


@pytest.mark.parametrize("make", [asynchronous, coroutine, lambda: generator])
def test_what_cannot_be_yielded(make: Callable[[], Any]) -> None:
    """Nothing is left that Python mutters about: warnings are errors here."""
    app = make_app(lambda: EventSourceResponse(iter([make()])))
    with pytest.raises(EventError, match=r"a stream can't send a .*yield Event, Comment, text"):
        app.test_client().get("/")


MISTAKES: list[tuple[Callable[[], Any], str]] = [
    (asynchronous, "asynchronous.*write a plain generator"),
    (coroutine, "asynchronous.*write a plain generator"),
    (lambda: generator, r"call generator\(\) and pass the generator"),
    (lambda: Event("a"), "not a single Event: pass a generator or a list"),
    (lambda: 5, "not a single int"),
    (lambda: None, "not a single NoneType"),
    (lambda: {"a": 1}, "not a single dict"),
]


@pytest.mark.parametrize(("make", "expected"), [*MISTAKES, (lambda: "text", "not a single str")])
def test_what_is_no_stream(make: Callable[[], Any], expected: str) -> None:
    with pytest.raises(TypeError, match=expected):
        EventSourceResponse(make())


@pytest.mark.parametrize(("make", "expected"), MISTAKES[:5])
def test_a_plain_response_of_no_stream(make: Callable[[], Any], expected: str) -> None:
    app = make_app(lambda: Response(make(), mimetype=EVENT_STREAM))
    with pytest.raises(TypeError, match=expected):
        app.test_client().get("/")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data: x\n\n", True),
        ("id: 1\ndata: x\n\n", True),
        ("data: x", False),
        ("a paragraph\n\n", False),
        ("event: at noon\nbring: cake", False),
    ],
)
def test_a_ready_made_frame_as_text_is_warned_of(
    text: str, expected: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "_warned", set())
    with caplog.at_level(logging.WARNING, "sseflask"):
        sent = body(lambda: EventSourceResponse([text, text]))
    assert sent.startswith(b"data: " + text.encode().partition(b"\n")[0]), "it is data all the same"
    assert len(caplog.records) == expected, "once"
    assert ("or bytes, which are sent as they are" in caplog.text) == expected


# -- registered or not ---------------------------------------------------------------------------


def test_without_an_application() -> None:
    sse = SSE()
    with pytest.raises(RuntimeError, match=r"0 applications: call sse\.init_app\(app\)"):
        sse.publish("a", "b")
    app = Flask(__name__)
    with app.test_request_context(), pytest.raises(RuntimeError, match=r"sse\.init_app\(app\)"):
        sse.subscribe("a")
    with app.test_request_context(), pytest.raises(RuntimeError, match=r"sse\.init_app\(app\)"):
        sse.publish("a", "b")


def test_twice_or_with_something_else() -> None:
    app = Flask(__name__)
    sse = SSE(app)
    for again in (lambda: SSE(app), lambda: sse.init_app(app)):
        with pytest.raises(RuntimeError, match=r"already: keep that one SSE, or find it as app"):
            again()
    assert app.extensions["sseflask"] is sse
    for wrong in (Flask, "app", None.__class__):
        with pytest.raises(TypeError, match="registered with an application, not with"):
            SSE(wrong)  # type: ignore[arg-type]  # the mistake


def test_outside_a_request() -> None:
    app = Flask(__name__)
    sse = SSE(app)
    with app.app_context(), pytest.raises(RuntimeError, match="request"):
        sse.subscribe("a")


def test_public_names() -> None:
    assert set(sseflask.__all__) <= set(dir(sseflask))
    assert sseflask.ChannelError is ChannelError
    for name in sseflask.__all__:
        assert getattr(sseflask, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'sse'"):
        _ = sseflask.sse
