"""What a server may do to a stream, and which events a client that reopens it has to report."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tests.scripted_upstream import Exchange, response

__all__ = ["STORIES", "Story"]


@dataclass(frozen=True)
class Story:
    """The answers to one request after the other, and what a client reports.

    Args:
        answers: bytes of a body, which ends well; or a function that answers.
        events: as ``[id, type, data]``, and then how it ended: ``done`` or ``failure``.
        cursors: the ``Last-Event-ID`` of each request.
    """

    answers: tuple[Any, ...]
    events: list[list[str]]
    ended: str = "done"
    cursors: tuple[str | None, ...] = (None,)

    def answer(self, number: int, exchange: Exchange) -> None:
        """The request of this number."""
        assert number < len(self.answers), "there was one request too many"
        answer = self.answers[number]
        if callable(answer):
            answer(exchange)
        else:
            exchange.stream(answer)


def cut(sent: bytes) -> Any:
    """The body ends without its last chunk."""

    def answer(exchange: Exchange) -> None:
        exchange.begin()
        if sent:
            exchange.chunk(sent)
        exchange.hang_up()

    return answer


def refusal(status: int, body: str = "", *headers: str, kind: str = "text/html") -> Any:
    """No stream, and the connection ends."""
    return lambda exchange: exchange.send(response(status, body.encode(), kind, *headers))


def error(status: int, code: str, *headers: str) -> Any:
    """One as this service says it."""
    body = json.dumps({"error": {"message": "It can't.", "type": "x", "param": None, "code": code}})
    return refusal(status, body, *headers, kind="application/json")


def failure(code: str) -> bytes:
    """An error in band."""
    error = json.dumps({"error": {"message": "It broke.", "code": code}})
    return f"event: failure\ndata: {error}\n\n".encode()


def silence(exchange: Exchange) -> None:
    """The connection ends without a word."""
    exchange.hang_up()


def nothing_left(exchange: Exchange) -> None:
    exchange.send(b"HTTP/1.1 204 No Content\r\n\r\n")


ONE, TWO = b"id: 1\ndata: one\n\n", b"id: 2\ndata: two\n\n"
EVENT_ONE, EVENT_TWO = ["1", "message", "one"], ["2", "message", "two"]
FINISHED = b"event: done\ndata: {}\n\n"

STORIES = {
    "an end with nothing to go on from": Story((b"data: a\n\n",), [["", "message", "a"]]),
    "an end with an id": Story(
        (ONE, TWO, nothing_left), [EVENT_ONE, EVENT_TWO], cursors=(None, "1", "2")
    ),
    "done": Story((ONE + FINISHED,), [EVENT_ONE]),
    "[DONE]": Story((ONE + b"data: [DONE]\n\n",), [EVENT_ONE]),
    "cut between events": Story(
        (cut(ONE), TWO + FINISHED), [EVENT_ONE, EVENT_TWO], cursors=(None, "1")
    ),
    "cut within an event": Story(
        (cut(ONE + b"id: 2\ndata: tw"), TWO + FINISHED), [EVENT_ONE, EVENT_TWO], cursors=(None, "1")
    ),
    "cut after an id without its event": Story(
        (cut(ONE + b"id: 2"), TWO + FINISHED), [EVENT_ONE, EVENT_TWO], cursors=(None, "1")
    ),
    "no answer": Story(
        (cut(ONE), silence, TWO + FINISHED), [EVENT_ONE, EVENT_TWO], cursors=(None, "1", "1")
    ),
    "a proxy without its server": Story(
        (cut(ONE), refusal(502, "<h1>Bad Gateway</h1>"), TWO + FINISHED),
        [EVENT_ONE, EVENT_TWO],
        cursors=(None, "1", "1"),
    ),
    "busy": Story(
        (error(503, "too_many_streams", "Retry-After: 0"), ONE + FINISHED),
        [EVENT_ONE],
        cursors=(None, None),
    ),
    "too many requests": Story(
        (error(429, "rate_limited", "Retry-After: 0"), ONE + FINISHED),
        [EVENT_ONE],
        cursors=(None, None),
    ),
    "refused as a stream": Story(
        (b": too_many_subscribers\nretry: 5\n\n", ONE + FINISHED), [EVENT_ONE], cursors=(None, None)
    ),
    "told to reconnect": Story(
        (ONE + b"retry: 5\n\n", TWO + FINISHED), [EVENT_ONE, EVENT_TWO], cursors=(None, "1")
    ),
    "an id alone": Story((b"id: 1\n\n", TWO + FINISHED), [EVENT_TWO], cursors=(None, "1")),
    "an id taken back": Story((ONE + b"id\ndata: x\n\n",), [EVENT_ONE, ["", "message", "x"]]),
    "final": Story((error(404, "not_found"),), [], "failure"),
    "not to be repeated": Story((error(503, "x", "X-Should-Retry: false"),), [], "failure"),
    "no money left": Story((error(429, "insufficient_quota"),), [], "failure"),
    "no stream": Story((refusal(200, "<p>Log in</p>"),), [], "failure"),
    "the generator failed": Story(
        (ONE + failure("internal_error"),),
        [EVENT_ONE],
        "failure",
    ),
    "the run failed": Story(
        (ONE + b"id: 2\n" + failure("x"),),
        [EVENT_ONE],
        "failure",
    ),
    "the connection failed": Story(
        (
            ONE + failure("shutting_down"),
            TWO + FINISHED,
        ),
        [EVENT_ONE, EVENT_TWO],
        cursors=(None, "1"),
    ),
    "a failure with nothing to go on from": Story(
        (failure("shutting_down"),),
        [],
        "failure",
    ),
    "every kind of line": Story(
        (
            "\ufeff: c\r\nid: 1\r\nevent: a\r\ndata: é\r\ndata\r\ndata:  two \r\n\r\n"
            "event\rdata:\r\rid: \0\ndata: 3\nunknown: x\n\n"
            "event: none\r\n\ndata: 4\n\ndata: no end".encode(),
            nothing_left,
        ),
        [
            ["1", "a", "é\n\n two "],
            ["1", "message", ""],
            ["1", "message", "3"],
            ["1", "message", "4"],
        ],
        cursors=(None, "1"),
    ),
}
