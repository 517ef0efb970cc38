"""When something is due for a stream."""

from __future__ import annotations

import contextlib
import math
import time
from typing import Any

import pytest

from sseflask.transport.failures import failure_frame, token_expired
from sseflask.transport.stream import Stream
from sseflask.transport.timing import StreamClock, heartbeat_bytes, slow_after


def clock(**times: Any) -> StreamClock:
    stream = Stream(
        items=(),
        encode=bytes,
        status="200 OK",
        headers=[],
        frames_only=False,
        heartbeat=times.get("heartbeat", 15.0),
        first_byte=times.get("first_byte", 1.0),
        lifetime=times.get("lifetime", 0.0),
        expires_at=times.get("expires_at"),
        detachable=True,
        retry=None,
        retry_jitter=0,
        keeps_view=False,
        context=contextlib.nullcontext,
        path="/",
        reporter=lambda path, error: token_expired(),  # noqa: ARG005  # nothing fails here
        failure_frame=failure_frame,
        response=contextlib.ExitStack(),
    )
    return StreamClock(stream)


def test_a_heartbeat_is_due_after_silence_and_a_slow_client_is_cut_after_two() -> None:
    times = clock(heartbeat=10.0)
    assert times.next(100.0, 95.0) == (105.0, "heartbeat")
    assert times.next(100.0, 95.0, behind=True) == (105.0, "look")
    assert times.next(112.0, 95.0, behind=True) == (115.0, "slow")
    assert slow_after(10.0) == 20.0


@pytest.mark.parametrize(("first_byte", "due"), [(1.0, "first_byte"), (30.0, "heartbeat")])
def test_the_headers_wait_for_the_first_event_for_a_time(first_byte: float, due: str) -> None:
    times = clock(first_byte=first_byte)
    assert times.first_byte_at == times.began + first_byte
    at, what = times.next(times.began, times.began, started=False)
    assert (at, what) == (times.began + min(first_byte, 15.0), due)
    assert times.next(times.began, times.began) == (times.began + 15.0, "heartbeat")


def test_a_stream_ends_once_at_its_lifetime_if_it_can_be_resumed() -> None:
    times = clock(lifetime=5.0)
    now = times.began
    assert times.next(now, now) == (now + 5.0, "lifetime")
    assert times.next(now, now, resumable=False) == (now + 15.0, "heartbeat")
    times.done("heartbeat")
    assert times.next(now, now) == (now + 5.0, "lifetime")
    times.done("lifetime")
    assert times.next(now, now) == (now + 15.0, "heartbeat")


def test_a_stream_ends_once_with_its_token() -> None:
    times = clock(expires_at=time.time() + 3.0, lifetime=5.0)
    now = time.monotonic()
    at, due = times.next(now, now, resumable=False)
    assert at == pytest.approx(now + 3.0, abs=0.5)
    assert due == "expiry"
    times.done("expiry")
    assert times.next(now, now)[1] == "lifetime"


def test_a_detached_stream_ends_before_its_lifetime() -> None:
    times = clock(lifetime=100.0)
    ends = {times.end(times.began) for _ in range(50)}
    assert len(ends) > 1
    assert all(due == "lifetime" for _, due in ends)
    assert all(80.0 <= at - times.began <= 100.0 for at, _ in ends)
    assert clock().end(0.0)[0] == math.inf
    assert clock(lifetime=100.0, expires_at=time.time() + 1.0).end(0.0)[1] == "expiry"


def test_a_heartbeat_never_goes_into_a_line() -> None:
    assert heartbeat_bytes(b"\n\n") == heartbeat_bytes(b"") == b": ping\n"
    assert heartbeat_bytes(b"data") == b""
