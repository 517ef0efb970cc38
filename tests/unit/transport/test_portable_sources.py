"""Sources on any WSGI server: their first frames, their end, and when clients reconnect."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from sseflask import SSE
from sseflask.errors import Failure
from sseflask.event import Event
from sseflask.response import EventSourceResponse
from sseflask.transport.detached.group import Group
from sseflask.transport.source import Source

SECONDS = 10.0


class Scripted(Source):
    """Gives what a test says: frames, ``None`` for silence, errors to be raised; then it ends."""

    def __init__(
        self,
        *script: bytes | Exception | None,
        first: Sequence[bytes | Exception] = (),
        resumable: bool = True,
    ) -> None:
        self._resumable = resumable
        self.waited: list[float] = []
        self.abandoned = threading.Event()
        self._script = list(script)
        self._first = first

    @property
    def resumable(self) -> bool:
        return self._resumable

    @property
    def ended(self) -> bool:
        return not self._script

    def first(self, timeout: float) -> Iterator[bytes]:
        self.waited.append(timeout)
        for each in self._first:
            yield self._given(each)

    def get(self, timeout: float | None) -> tuple[bytes, bool] | None:
        if not self._script or self.abandoned.is_set():
            raise StopIteration
        given = self._script.pop(0)
        if given is None:
            # Silence is as long as it was asked for.
            self.abandoned.wait(timeout)
            return None
        return self._given(given), self.resumable

    def _given(self, what: bytes | Exception) -> bytes:
        if isinstance(what, Exception):
            raise what
        return what

    def join(self, chunked: bool, heartbeat: float) -> Group | None:
        raise NotImplementedError

    def abandon(self) -> None:
        self.abandoned.set()


def answered(source: Source, *, retry: int | None = None, **times: Any) -> TestResponse:
    """What a request gets, not read yet."""
    app = Flask(__name__)
    app.config["SSEFLASK_RETRY"] = retry
    SSE(app)

    @app.get("/")
    def view() -> EventSourceResponse:
        return EventSourceResponse(
            source, failure_event=lambda failure: Event(failure.json(), event="told"), **times
        )

    return app.test_client().get("/")


def pieces(response: TestResponse) -> list[bytes]:
    return [piece for piece in response.iter_encoded() if piece]


ONE, TWO = b"id: 1\ndata: 1\n\n", b"id: 2\ndata: 2\n\n"


def test_the_first_frames_come_with_the_headers() -> None:
    source = Scripted(TWO, first=[ONE])
    response = answered(source, first_byte=0.5)
    assert response.status_code == 200
    assert pieces(response) == [ONE, TWO]
    assert source.waited == [0.5]


def test_where_there_are_none_the_headers_come_all_the_same() -> None:
    assert pieces(answered(Scripted(ONE))) == [b": ping\n", ONE]


def test_a_reconnection_time_comes_first() -> None:
    assert pieces(answered(Scripted(TWO, first=[ONE]), retry=200)) == [b"retry: 200\n" + ONE, TWO]
    assert pieces(answered(Scripted(ONE), retry=0)) == [b"retry: 0\n", ONE]


@pytest.mark.parametrize("status", [404, 503])
def test_what_fails_before_the_first_frame_is_an_error_response(status: int) -> None:
    source = Scripted(
        ONE, first=[Failure("no", status=status, code="no", headers={"X-Run-Id": "r"})]
    )
    response = answered(source)
    assert response.status_code == status
    assert response.headers["X-Run-Id"] == "r"
    assert json.loads(response.data)["error"]["code"] == "no"
    response.close()
    assert source.abandoned.is_set()


def test_what_fails_later_is_reported_in_band() -> None:
    source = Scripted(Failure("no", code="no"), TWO, first=[ONE])
    one, failure = pieces(answered(source))
    assert one == ONE
    assert failure.startswith(b"event: told\n")
    assert source.abandoned.is_set()


def test_in_silence_there_are_heartbeats() -> None:
    source = Scripted(None, None, TWO, first=[ONE])
    assert pieces(answered(source, heartbeat=0.01)) == [ONE, b": ping\n", b": ping\n", TWO]


def test_a_stream_is_sent_away_to_resume_when_its_time_is_over() -> None:
    source = Scripted(None, TWO, first=[ONE])
    assert pieces(answered(source, lifetime=0.05, heartbeat=5)) == [ONE], "no pace is set"
    assert source.abandoned.is_set()


def test_one_that_could_not_resume_is_not() -> None:
    source = Scripted(None, None, TWO, first=[ONE], resumable=False)
    response = answered(source, lifetime=0.001, heartbeat=0.05)
    assert pieces(response) == [ONE, b": ping\n", b": ping\n", TWO]


def test_one_that_could_not_resume_still_ends_with_its_token() -> None:
    source = Scripted(None, TWO, first=[ONE], resumable=False)
    one, last = pieces(answered(source, expires_at=time.time() + 0.05, heartbeat=5))
    assert one == ONE
    assert b"token_expired" in last


def test_who_leaves_abandons_it() -> None:
    source = Scripted(None, first=[ONE])
    response = answered(source, heartbeat=SECONDS)
    assert next(response.iter_encoded()) == ONE
    assert not source.abandoned.is_set()
    response.close()
    assert source.abandoned.is_set()
