"""The failures that transports report to clients, and how a failure is sent in band."""

from __future__ import annotations

from sseflask.errors import Failure
from sseflask.event import Event
from sseflask.wire import encode

__all__ = [
    "body_too_slow",
    "failure_event",
    "failure_frame",
    "half_closed",
    "shutting_down",
    "token_expired",
    "too_many_streams",
    "too_many_subscribers",
]


def failure_event(failure: Failure) -> Event:
    """How a failure is told in band unless a response has its own way."""
    return Event(failure.json(), event="failure")


def failure_frame(failure: Failure) -> bytes:
    """The bytes of `failure_event`."""
    return encode(failure_event(failure))


def shutting_down() -> Failure:
    """What clients of a stream that can't be resumed are told when the server stops."""
    return Failure(
        "The server is shutting down; please try again.",
        status=503,
        code="shutting_down",
        headers={"Retry-After": "1"},
        transient=True,
    )


def too_many_streams() -> Failure:
    """What a client is told when this worker has no room for one more that takes long."""
    return _too_many("streams")


def too_many_subscribers() -> Failure:
    """The same for a subscriber."""
    return _too_many("subscribers")


def _too_many(what: str) -> Failure:
    return Failure(
        f"This server has as many {what} as it can take; please try again.",
        status=503,
        code=f"too_many_{what}",
        headers={"Retry-After": "5"},
        transient=True,
    )


def body_too_slow() -> Failure:
    """What a client is told whose chunked request body does not arrive."""
    return Failure(
        "The request's body did not arrive in time; please send it again.",
        status=408,
        type="invalid_request_error",
        code="request_timeout",
    )


def half_closed() -> Failure:
    """What a client is told that has closed its side of the connection before the stream's end."""
    return Failure(
        "The client closed its side of the connection, which counts as leaving; keep it open "
        "while the stream is read.",
        status=400,
        type="invalid_request_error",
        code="client_left",
    )


def token_expired() -> Failure:
    """What a client is told when its token's time is over."""
    return Failure(
        "The token has expired; get a new one and reconnect.",
        status=401,
        type="authentication_error",
        code="token_expired",
    )
