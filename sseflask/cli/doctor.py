"""``sseflask doctor``: whether a deployment delivers streams properly."""

from __future__ import annotations

import email.utils
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import click
import httpx2

from sseflask.cli.client import describe, route, url_of, with_client
from sseflask.event import MessageEvent
from sseflask.platforms import HEARTBEATS, SHORTEST_FIRST_BYTE, SHORTEST_IDLE
from sseflask.wire import Decoder

Grade = Literal["good", "doubtful", "bad"]
_MARKS: dict[Grade, tuple[str, str]] = {
    "good": ("ok  ", "green"),
    "doubtful": ("hm  ", "yellow"),
    "bad": ("BAD ", "red"),
}

#: Seconds between two events of the counter, and seconds by which one may be late.
_INTERVAL, _LATE = 0.4, 1.0
#: Seconds by which clocks may differ before tokens are refused, or live longer than they should.
_SKEW = 5.0


@dataclass(frozen=True)
class Result:
    """The result of a check: a grade, what was observed, and what to do if that is not good."""

    grade: Grade
    found: str
    advice: str = ""


@dataclass
class _Received:
    """A stream as it arrived: times are in seconds from the request."""

    response: httpx2.Response
    head: float
    events: list[tuple[float, MessageEvent]]
    pings: list[float]


def _receive(
    client: httpx2.Client,
    url: httpx2.URL,
    *,
    headers: Mapping[str, str] | None = None,
    enough: Callable[[_Received], bool] | None = None,
) -> _Received:
    """Read a stream until its end, or until ``enough`` of it has come."""
    began = time.monotonic()
    decoder = Decoder()
    with client.stream("GET", url, headers=headers) as response:
        seen = _Received(response, time.monotonic() - began, [], [])
        response.raise_for_status()
        for piece in response.iter_bytes():
            at = time.monotonic() - began
            seen.events += [(at, event) for event in decoder.feed(piece)]
            seen.pings += [at] * (piece.startswith(b":") or b"\n:" in piece)
            if enough is not None and enough(seen):
                break
    return seen


def _counter(url: httpx2.URL, count: int, interval: float) -> httpx2.URL:
    return route(url, "/sse/v1").copy_with(params={"count": count, "interval": interval})


def alive(client: httpx2.Client, url: httpx2.URL) -> Iterator[Result]:
    """Does it answer, and is it the service?"""
    began = time.monotonic()
    response = client.get(route(url, "/readyz"))
    took = (time.monotonic() - began) * 1000
    if response.status_code == 404:
        yield Result("bad", "/readyz does not exist", "is this the address of the service?")
        return
    status = response.json().get("status")
    found = f"{status}, {response.http_version}, {took:.0f} ms"
    if response.status_code != 200:
        yield Result("bad", found, "it is shutting down, or the platform must not send requests")
        return
    yield Result("good", found)
    channels = response.json().get("channels", {})
    if channels.get("history") != "disk":
        advice = (
            "put the file on a disk that outlives it, or let the Redis server save each change "
            "(appendonly yes)"
        )
        yield Result("doubtful", str(channels.get("meaning")), advice)
    if "warning" in channels:
        yield Result("doubtful", "the Redis server", str(channels["warning"]))
    for name in ("channels", "completions"):
        store = response.json().get(name, {})
        if store.get("log") != "available":
            why = " ".join(store[part] for part in ("reason", "since") if part in store)
            found = f"the store of the {name}: {store.get('log')}"
            yield Result("bad", f"{found} ({why})" if why else found, "see the server's log")


def clock(client: httpx2.Client, url: httpx2.URL) -> Iterator[Result]:
    """Is its clock right, so that tokens expire at the right time?"""
    response = client.get(route(url, "/healthz"))
    try:
        there = email.utils.parsedate_to_datetime(response.headers.get("Date", "")).timestamp()
    except ValueError:
        yield Result("doubtful", "it sends no Date", "let the proxy pass it on")
        return
    skew = there - time.time()
    grade: Grade = "good" if abs(skew) <= _SKEW else "bad"
    advice = "have both clocks set by NTP: tokens expire by the server's"
    yield Result(grade, f"{skew:+.0f} s from this machine's", advice)


def buffering(client: httpx2.Client, url: httpx2.URL) -> Iterator[Result]:
    """Do events arrive when they are sent, or does something buffer them?"""
    seen = _receive(client, _counter(url, 6, _INTERVAL))
    times = [at for at, _ in seen.events]
    if len(times) < 6:
        yield Result("bad", f"{len(times)} of 6 events arrived", "something cuts streams short")
        return
    gaps = [after - before for before, after in itertools.pairwise(times)]
    apart = ", ".join(f"{gap:.2f}" for gap in gaps)
    if sum(gap < _INTERVAL / 4 for gap in gaps) > len(gaps) / 2:
        yield Result(
            "bad",
            f"events that were sent {_INTERVAL} s apart came {apart} s apart",
            "a proxy buffers: nginx needs proxy_buffering off if a second nginx removed the header "
            "X-Accel-Buffering; switch response buffering off in others",
        )
    elif max(gaps) > _INTERVAL + _LATE:
        advice = "the network or the server is busy: try again"
        yield Result("doubtful", f"events sent {_INTERVAL} s apart came {apart} s apart", advice)
    else:
        yield Result("good", f"each within {max(abs(gap - _INTERVAL) for gap in gaps):.2f} s")
    control = seen.response.headers.get("Cache-Control")
    if "no-transform" not in (control or ""):
        advice = "a proxy changes it: no-transform keeps others from compressing streams"
        yield Result("doubtful", f"Cache-Control arrives as {control!r}", advice)


def compression(client: httpx2.Client, url: httpx2.URL) -> Iterator[Result]:
    """Does something compress streams for a client that accepts it?"""
    target = _counter(url, 3, _INTERVAL)
    seen = _receive(client, target, headers={"Accept-Encoding": "gzip, deflate, br, zstd"})
    coding = seen.response.headers.get("Content-Encoding", "identity")
    spread = seen.events[-1][0] - seen.events[0][0] if seen.events else 0.0
    if coding == "identity":
        yield Result("good", "none")
    elif spread < _INTERVAL:
        advice = "exclude text/event-stream from what the proxy compresses"
        yield Result("bad", f"{coding}, and events are held back by it", advice)
    else:
        yield Result("doubtful", f"{coding}, event by event", "it costs time and saves little")


def first_byte(client: httpx2.Client, url: httpx2.URL) -> Iterator[Result]:
    """Do headers arrive before a router gives up?"""
    seen = _receive(client, _counter(url, 1, 0))
    grade: Grade = (
        "good" if seen.head < 2 else "doubtful" if seen.head < SHORTEST_FIRST_BYTE else "bad"
    )
    advice = "SSEFLASK_FIRST_BYTE is too long, or a proxy waits for more"
    yield Result(grade, f"headers after {seen.head * 1000:.0f} ms", advice)


def resume(client: httpx2.Client, url: httpx2.URL) -> Iterator[Result]:
    """Does a stream that was cut go on after its last event?"""
    target = _counter(url, 8, 0.1)
    cut = _receive(client, target, enough=lambda seen: len(seen.events) >= 3)
    last = cut.events[-1][1].last_event_id
    rest = _receive(client, target, headers={"Last-Event-ID": last})
    numbers = [int(event.data) for _, event in rest.events]
    if numbers == list(range(int(last) + 1, 8)):
        yield Result("good", f"cut after {last}, went on with {numbers[0]}")
    else:
        advice = "a proxy drops the header Last-Event-ID"
        yield Result("bad", f"cut after {last}, went on with {numbers[:3]}", advice)


def heartbeat(client: httpx2.Client, url: httpx2.URL) -> Iterator[Result]:
    """Does a silent stream stay open, and how often does it send a heartbeat?"""
    limit, longest = SHORTEST_IDLE + 5, SHORTEST_IDLE / HEARTBEATS
    target = _counter(url, 2, limit)
    try:
        seen = _receive(
            client, target, enough=lambda seen: bool(seen.pings) or len(seen.events) > 1
        )
    except httpx2.TransportError as error:
        advice = "set SSEFLASK_HEARTBEAT below the proxy's limit on silence"
        yield Result("bad", f"a silent stream was cut ({type(error).__name__})", advice)
        return
    if not seen.pings:
        advice = f"SSEFLASK_HEARTBEAT should be {longest:.0f} s at most"
        yield Result("bad", f"no heartbeat within {limit:.0f} s", advice)
        return
    after = seen.pings[0] - seen.events[0][0]
    advice = f"at {longest:.0f} s or less two may be late"
    grade: Grade = "good" if after <= longest else "doubtful"
    yield Result(grade, f"after {after:.0f} s of silence", advice)


def open_routes(client: httpx2.Client, url: httpx2.URL) -> Iterator[Result]:
    """What is open without a token?"""
    with httpx2.Client(timeout=client.timeout, follow_redirects=True) as stranger:
        # An empty body gets 400, and only after the token was checked: nothing is stored. The name
        # must not begin like those of the service's channels, to which nobody may publish.
        publishing = stranger.post(route(url, "/channels/doctor.sseflask"), content=b"")
        models = stranger.get(route(url, "/v1/models"))
        metrics = stranger.get(route(url, "/metrics"))
    yield _openness("publishing", publishing)
    if models.status_code == 200 and '"sseflask-demo"' in models.text:
        yield Result("good", "completions: open, but they are the demo model's")
    else:
        yield _openness("completions", models)
    yield _openness("metrics", metrics)


def _openness(name: str, response: httpx2.Response) -> Result:
    if response.status_code in (401, 403, 404):
        return Result("good", f"{name}: closed ({response.status_code})")
    advice = "set SSEFLASK_SECRET, and start it without --dev, unless this is a machine of your own"
    return Result("doubtful", f"{name}: open ({response.status_code})", advice)


#: The checks, each with its name, and whether it takes more than a few seconds.
CHECKS: list[tuple[str, bool, Callable[[httpx2.Client, httpx2.URL], Iterator[Result]]]] = [
    ("alive", False, alive),
    ("clock", False, clock),
    ("first byte", False, first_byte),
    ("buffering", False, buffering),
    ("compression", False, compression),
    ("cut and resumed", False, resume),
    ("open without a token", False, open_routes),
    ("heartbeat", True, heartbeat),
]


@click.command("doctor")
@click.argument("url", callback=url_of)
@click.option("--quick", is_flag=True, help="Without the heartbeat, which takes a minute.")
@with_client
def command(url: httpx2.URL, quick: bool, client: httpx2.Client) -> None:
    """Check the service at URL from outside, with all proxies.

    It uses the counter, which is open to all, and stores nothing. Ends with status 1 if a check
    fails.
    """
    bad = False
    for name, slow, check in CHECKS:
        if slow and quick:
            continue
        try:
            results = list(check(client, url))
        except httpx2.ConnectError:
            raise
        except (httpx2.HTTPError, ValueError, KeyError) as error:
            reason = describe(error) if isinstance(error, httpx2.HTTPError) else repr(error)
            results = [Result("bad", reason, "this is not what the service sends")]
        for result in results:
            mark, color = _MARKS[result.grade]
            click.echo(f"{click.style(mark, fg=color)} {name:22} {result.found}")
            if result.grade != "good":
                click.echo(f"{'':28}{result.advice}")
            bad = bad or result.grade == "bad"
    if bad:
        raise SystemExit(1)
