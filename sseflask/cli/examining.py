"""What a deployment does to streams, looked at from outside: one function for each question."""

from __future__ import annotations

import email.utils
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import httpx2

from sseflask.cli.client import at
from sseflask.event import MessageEvent
from sseflask.platforms import HEARTBEATS, SHORTEST_FIRST_BYTE, SHORTEST_IDLE
from sseflask.wire import Decoder

__all__ = ["EXAMINATIONS", "Grade", "Verdict"]

Grade = Literal["good", "doubtful", "bad"]

#: Seconds between two events of the counter, and that one may be late for.
_INTERVAL, _LATE = 0.4, 1.0
#: Seconds by which clocks may differ before tokens are refused, or live longer than they should.
_SKEW = 5.0


@dataclass(frozen=True)
class Verdict:
    """The answer to one question.

    Args:
        grade: how it is.
        found: what was seen.
        mend: what to do about it, if something should be done.
    """

    grade: Grade
    found: str
    mend: str = ""


@dataclass
class _Seen:
    """A stream as it arrived: when each event did, in seconds from the request."""

    response: httpx2.Response
    head: float
    events: list[tuple[float, MessageEvent]]
    pings: list[float]


def _watch(
    client: httpx2.Client,
    url: httpx2.URL,
    *,
    headers: Mapping[str, str] | None = None,
    enough: Callable[[_Seen], bool] | None = None,
) -> _Seen:
    """Read a stream until its end, or until there is enough of it."""
    began = time.monotonic()
    decoder = Decoder()
    with client.stream("GET", url, headers=headers) as response:
        seen = _Seen(response, time.monotonic() - began, [], [])
        response.raise_for_status()
        for piece in response.iter_bytes():
            at = time.monotonic() - began
            seen.events += [(at, event) for event in decoder.feed(piece)]
            seen.pings += [at] * (piece.startswith(b":") or b"\n:" in piece)
            if enough is not None and enough(seen):
                break
    return seen


def _counter(url: httpx2.URL, count: int, interval: float) -> httpx2.URL:
    return at(url, "/sse/v1").copy_with(params={"count": count, "interval": interval})


def alive(client: httpx2.Client, url: httpx2.URL) -> Iterator[Verdict]:
    """Does it answer, and is it the service?"""
    began = time.monotonic()
    response = client.get(at(url, "/readyz"))
    took = (time.monotonic() - began) * 1000
    if response.status_code == 404:
        yield Verdict("bad", "/readyz is not there", "is this the address of the service?")
        return
    status = response.json().get("status")
    found = f"{status}, {response.http_version}, {took:.0f} ms"
    if response.status_code != 200:
        yield Verdict("bad", found, "it is shutting down, or the platform must not send requests")
        return
    yield Verdict("good", found)
    kept = response.json().get("channels", {})
    if kept.get("history") != "disk":
        yield Verdict(
            "doubtful", str(kept.get("meaning")), "keep the log on a disk that outlives it"
        )
    for name in ("channels", "completions"):
        condition = response.json().get(name, {}).get("log")
        if condition != "available":
            yield Verdict("bad", f"the log of the {name}: {condition}", "see the server's log")


def clock(client: httpx2.Client, url: httpx2.URL) -> Iterator[Verdict]:
    """Does its clock go right, so that tokens are valid when they should be?"""
    response = client.get(at(url, "/healthz"))
    try:
        there = email.utils.parsedate_to_datetime(response.headers.get("Date", "")).timestamp()
    except ValueError:
        yield Verdict("doubtful", "it sends no Date", "let the proxy pass it on")
        return
    skew = there - time.time()
    grade: Grade = "good" if abs(skew) <= _SKEW else "bad"
    mend = "" if grade == "good" else "have both clocks set by NTP: tokens expire by the server's"
    yield Verdict(grade, f"{skew:+.0f} s from this machine's", mend)


def buffering(client: httpx2.Client, url: httpx2.URL) -> Iterator[Verdict]:
    """Do events arrive when they are sent, or does something gather them?"""
    seen = _watch(client, _counter(url, 6, _INTERVAL))
    times = [at for at, _ in seen.events]
    if len(times) < 6:
        yield Verdict("bad", f"{len(times)} of 6 events arrived", "something cuts streams short")
        return
    gaps = [after - before for before, after in itertools.pairwise(times)]
    apart = ", ".join(f"{gap:.2f}" for gap in gaps)
    if sum(gap < _INTERVAL / 4 for gap in gaps) > len(gaps) / 2:
        yield Verdict(
            "bad",
            f"events that were sent {_INTERVAL} s apart came {apart} s apart",
            "a proxy buffers: nginx needs proxy_buffering off if a second nginx ate the header "
            "X-Accel-Buffering; switch response buffering off in others",
        )
    elif max(gaps) > _INTERVAL + _LATE:
        mend = "the way or the server is busy: try again"
        yield Verdict("doubtful", f"events sent {_INTERVAL} s apart came {apart} s apart", mend)
    else:
        yield Verdict("good", f"each within {max(abs(gap - _INTERVAL) for gap in gaps):.2f} s")
    yield from _headers(seen.response)


def _headers(response: httpx2.Response) -> Iterator[Verdict]:
    if "no-transform" not in response.headers.get("Cache-Control", ""):
        yield Verdict(
            "doubtful",
            f"Cache-Control arrives as {response.headers.get('Cache-Control')!r}",
            "something on the way changes it: no-transform keeps others from compressing streams",
        )


def compression(client: httpx2.Client, url: httpx2.URL) -> Iterator[Verdict]:
    """Does something compress streams for a client that takes it?"""
    target = _counter(url, 3, _INTERVAL)
    seen = _watch(client, target, headers={"Accept-Encoding": "gzip, deflate, br, zstd"})
    coding = seen.response.headers.get("Content-Encoding", "identity")
    spread = seen.events[-1][0] - seen.events[0][0] if seen.events else 0.0
    if coding == "identity":
        yield Verdict("good", "none")
    elif spread < _INTERVAL:
        mend = "exclude text/event-stream from what the proxy compresses"
        yield Verdict("bad", f"{coding}, and events are held back by it", mend)
    else:
        yield Verdict("doubtful", f"{coding}, event by event", "it costs time and saves little")


def first_byte(client: httpx2.Client, url: httpx2.URL) -> Iterator[Verdict]:
    """Are headers there before a router gives up?"""
    seen = _watch(client, _counter(url, 1, 0))
    grade: Grade = (
        "good" if seen.head < 2 else "doubtful" if seen.head < SHORTEST_FIRST_BYTE else "bad"
    )
    mend = "" if grade == "good" else "SSEFLASK_FIRST_BYTE is too long, or a proxy waits for more"
    yield Verdict(grade, f"headers after {seen.head * 1000:.0f} ms", mend)


def resume(client: httpx2.Client, url: httpx2.URL) -> Iterator[Verdict]:
    """Does a stream that was cut go on where it was?"""
    target = _counter(url, 8, 0.1)
    cut = _watch(client, target, enough=lambda seen: len(seen.events) >= 3)
    last = cut.events[-1][1].last_event_id
    rest = _watch(client, target, headers={"Last-Event-ID": last})
    numbers = [int(event.data) for _, event in rest.events]
    if numbers == list(range(int(last) + 1, 8)):
        yield Verdict("good", f"cut after {last}, went on with {numbers[0]}")
    else:
        mend = "something on the way drops the header Last-Event-ID"
        yield Verdict("bad", f"cut after {last}, went on with {numbers[:3]}", mend)


def heartbeat(client: httpx2.Client, url: httpx2.URL) -> Iterator[Verdict]:
    """Does a silent stream stay open, and how often does it show that it is?"""
    limit, longest = SHORTEST_IDLE + 5, SHORTEST_IDLE / HEARTBEATS
    target = _counter(url, 2, limit)
    try:
        seen = _watch(client, target, enough=lambda seen: bool(seen.pings) or len(seen.events) > 1)
    except httpx2.TransportError as error:
        mend = "set SSEFLASK_HEARTBEAT below the proxy's limit on silence"
        yield Verdict("bad", f"a silent stream was cut ({type(error).__name__})", mend)
        return
    if not seen.pings:
        mend = f"SSEFLASK_HEARTBEAT should be {longest:.0f} s at most"
        yield Verdict("bad", f"no heartbeat within {limit:.0f} s", mend)
        return
    after = seen.pings[0] - seen.events[0][0]
    grade: Grade = "good" if after <= longest else "doubtful"
    mend = "" if grade == "good" else f"at {longest:.0f} s or less two may be late"
    yield Verdict(grade, f"after {after:.0f} s of silence", mend)


def doors(client: httpx2.Client, url: httpx2.URL) -> Iterator[Verdict]:
    """What is open to somebody without a token?"""
    with httpx2.Client(timeout=client.timeout, follow_redirects=True) as stranger:
        # Nothing is refused as nothing only after its sender has been let in, and is not stored.
        # The name must not begin like those of the service's own channels, which are shut to all.
        publishing = stranger.post(at(url, "/channels/doctor.sseflask"), content=b"")
        models = stranger.get(at(url, "/v1/models"))
        metrics = stranger.get(at(url, "/metrics"))
    yield _door("publishing", publishing)
    if models.status_code == 200 and '"sseflask-demo"' in models.text:
        yield Verdict("good", "completions: open, but they are the demo model's")
    else:
        yield _door("completions", models)
    yield _door("metrics", metrics)


def _door(name: str, response: httpx2.Response) -> Verdict:
    if response.status_code in (401, 403, 404):
        return Verdict("good", f"{name}: closed ({response.status_code})")
    mend = "set SSEFLASK_SECRET, and start it without --dev, unless this is a machine of your own"
    return Verdict("doubtful", f"{name}: open ({response.status_code})", mend)


#: Each with what it is called, and whether it takes longer than seconds.
EXAMINATIONS: list[tuple[str, bool, Callable[[httpx2.Client, httpx2.URL], Iterator[Verdict]]]] = [
    ("alive", False, alive),
    ("clock", False, clock),
    ("first byte", False, first_byte),
    ("buffering", False, buffering),
    ("compression", False, compression),
    ("cut and resumed", False, resume),
    ("open without a token", False, doors),
    ("heartbeat", True, heartbeat),
]
