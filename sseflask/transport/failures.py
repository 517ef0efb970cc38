"""The failures that transports report to clients, and how a failure is sent in band."""

from __future__ import annotations

from sseflask.errors import Failure
from sseflask.event import Event
from sseflask.wire import encode


def failure_event(failure: Failure) -> Event:
    """The event that reports a failure in band, unless a response has its own."""
    return Event(failure.json(), event="failure")


def failure_frame(failure: Failure) -> bytes:
    """The bytes of `failure_event`."""
    return encode(failure_event(failure))


def shutting_down() -> Failure:
    return Failure(
        "The server is shutting down; please try again.",
        status=503,
        code="shutting_down",
        headers={"Retry-After": "1"},
        transient=True,
    )


def worker_full(what: str) -> Failure:
    return Failure(
        f"This server has as many {what} as it can take; please try again.",
        status=503,
        code=f"too_many_{what}",
        headers={"Retry-After": "5"},
        transient=True,
    )


def body_too_slow() -> Failure:
    return Failure(
        "The request's body did not arrive in time; please send it again.",
        status=408,
        type="invalid_request_error",
        code="request_timeout",
    )


def half_closed() -> Failure:
    """The failure of a stream whose client closed its side too early."""
    return Failure(
        "The client closed its side of the connection, which counts as leaving; keep it open "
        "while the stream is read.",
        status=400,
        type="invalid_request_error",
        code="client_left",
    )


def token_expired() -> Failure:
    return Failure(
        "The token has expired; get a new one and reconnect.",
        status=401,
        type="authentication_error",
        code="token_expired",
    )
