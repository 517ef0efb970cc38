"""The load client's parsers, with bytes cut anywhere."""

from __future__ import annotations

import contextlib
import time

import pytest

from benchmarks.client.events import EventReader
from benchmarks.client.fault import Fault
from benchmarks.client.http import BadResponse, ResponseReader, get
from benchmarks.client.ids import RunIds
from benchmarks.client.load import Load, Stream
from benchmarks.client.order import FloodCheck, OrderCheck
from benchmarks.frames import FRAMES, PERIOD
from benchmarks.scenarios.relay import Delays
from benchmarks.upstream import Upstream, read_chunk

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENTS = (
    b"data: 0\n\n: ping\ndata: 1\n\nretry: 500\nid: 2\nevent: x\ndata:2\ndata\n\n: only this\n\n"
)


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def cuts(data: bytes) -> list[list[bytes]]:
    """The data in one piece, byte by byte, and in two at every place."""
    single = [data[index : index + 1] for index in range(len(data))]
    return [[data], single, *([data[:at], data[at:]] for at in range(1, len(data)))]


def test_a_chunked_body_is_read_whatever_the_cuts() -> None:
    response = HEAD + chunked(b"data: 0\n\n", b"x" * 300, b"\r\n", b"data: 1\n\n")
    for pieces in cuts(response):
        reader = ResponseReader()
        body = b"".join(reader.feed(piece) for piece in pieces)
        assert body == b"data: 0\n\n" + b"x" * 300 + b"\r\n" + b"data: 1\n\n"
        assert reader.ended
        assert reader.status == 200


def test_a_body_without_its_last_chunk_has_not_ended() -> None:
    reader = ResponseReader()
    reader.feed(HEAD + chunked(b"data: 0\n\n")[:-5])
    assert not reader.ended


@pytest.mark.parametrize(
    "response",
    [
        b"hello\r\n\r\n",
        HEAD + b"xyz\r\n",
        HEAD + b"-5\r\n",
        HEAD + b"2\r\nabcd\r\n",
        HEAD + b"0\r\nX: y\r\n\r\n",
    ],
)
def test_broken_framing_is_refused(response: bytes) -> None:
    reader = ResponseReader()
    with pytest.raises(BadResponse):
        reader.feed(response)


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_events_are_read_whatever_the_cuts(line_end: bytes) -> None:
    for pieces in cuts(EVENTS.replace(b"\n", line_end)):
        reader = EventReader()
        found = [data for piece in pieces for data in reader.feed(piece)]
        # A bare CR at the very end may be half of a CRLF, so the last block can stay open.
        assert found == [b"0", b"1", b"2\n"]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_ids_are_read_whatever_the_cuts(line_end: bytes) -> None:
    events = EVENTS.replace(b"data: 0", b"id: a.1\ndata: 0") + b"id: a.3\n\ndata: 3\nid:b\nid\n\n"
    for pieces in cuts((events + b": end\n\n").replace(b"\n", line_end)):
        reader = EventReader()
        found = [event for piece in pieces for event in reader.feed_with_ids(piece)]
        assert found == [(b"a.1", b"0"), (None, b"1"), (b"2", b"2\n"), (b"", b"3")]


RUN = "0123456789abcdef" * 2


def ids(*found: str | None, expected: int = 0, after: RunIds | None = None) -> list[Fault]:
    check = after or RunIds()
    for each in found:
        check.take(None if each is None else each.replace("run", RUN).encode())
    assert after or check.run in ("", RUN)
    check.expect(expected)
    return check.faults()


def test_ids_of_a_run_count_from_one() -> None:
    assert ids("run.1", "run.2", "run.3", expected=3) == []
    assert ids("run.2", "run.3", expected=3) == [Fault("ids missing", 1)]
    assert ids("run.1", "run.4") == [Fault("ids missing", 2)]
    assert ids("run.1", "run.1") == [Fault("ids repeated or out of order", 1)]
    assert ids("run.1", "run.0") == [Fault("ids repeated or out of order", 1)]
    assert ids("run.1", expected=3) == [Fault("ids missing at the end", 2)]
    assert ids("run.1", "run.2", expected=1) == [Fault("ids too many", 1)]


def test_ids_of_a_resumed_stream_go_on() -> None:
    assert ids("run.3", "run.4", expected=4, after=RunIds(RUN, 2)) == []
    assert ids("run.2", after=RunIds(RUN, 2)) == [Fault("ids repeated or out of order", 1)]
    assert ids("run.4", after=RunIds(RUN, 2)) == [Fault("ids missing", 1)]
    assert ids("run.3", after=RunIds("f" * 32, 2))[0] == Fault("ids of another run", 1)


@pytest.mark.parametrize(
    "wrong", ["1", "run", "run.", "run.01", "run.x", "Run.1", "abc.1", "run.1 "]
)
def test_what_is_no_id_of_a_run_is_a_fault(wrong: str) -> None:
    shown = wrong.replace("run", RUN).encode()
    assert ids("run.1", wrong) == [Fault(f"no id of a run: {shown!r}", 1)]


def test_each_event_has_an_id_of_the_same_run() -> None:
    assert ids("run.1", None) == [Fault("events without an id", 1)]
    assert ids("run.1", "f" * 32 + ".2") == [Fault("ids of another run", 1)]


def test_ids_are_checked_also_where_an_event_has_no_number() -> None:
    check = OrderCheck(1, lambda data: int(data) if data.isdigit() else None, ids=RunIds())
    check.feed(f"id: {RUN}.1\ndata: x\n\n: ping\n\nid: {RUN}.2\ndata: 0\n\ndata: y\n\n".encode())
    assert check.complete
    assert check.faults() == [Fault("events without an id", 1)]


def flood(numbers: list[int], *, size: int = 0) -> FloodCheck:
    check = FloodCheck(PERIOD * 2)
    data = b"".join(FRAMES[number % PERIOD] for number in numbers)
    for start in range(0, len(data), size or len(data)):
        check.feed(data[start : start + (size or len(data))])
    return check


@pytest.mark.parametrize("size", [0, 1, 7, 24, 1000])
def test_a_complete_flood_is_counted_over_its_periods(size: int) -> None:
    numbers = list(range(PERIOD * 2)) if size != 1 else list(range(50))
    check = flood(numbers, size=size)
    assert check.events == len(numbers)
    assert check.faults() == []
    assert check.lacking() == PERIOD * 2 - len(numbers)


@pytest.mark.parametrize("size", [0, 7, 24, 1000])
@pytest.mark.parametrize("at", [0, 1, 2500, PERIOD - 1, PERIOD, PERIOD + 1])
def test_faults_in_a_flood_are_counted(at: int, size: int) -> None:
    numbers = list(range(PERIOD + 100))
    dropped = flood(numbers[:at] + numbers[at + 1 :], size=size)
    repeated = flood([*numbers[: at + 1], at, *numbers[at + 1 :]], size=size)
    swapped = flood([*numbers[:at], at + 1, at, *numbers[at + 2 :]], size=size)

    assert dropped.faults() == [Fault("events missing", 1)]
    assert repeated.faults() == [Fault("events repeated or out of order", 1)]
    assert {fault.kind for fault in swapped.faults()} == {
        "events missing",
        "events repeated or out of order",
    }
    assert swapped.events == len(numbers)


def test_other_lines_in_a_flood_are_no_fault() -> None:
    check = FloodCheck(4)
    check.feed(FRAMES[0] + FRAMES[1][:5])
    check.feed(FRAMES[1][5:] + b": ping\n" + FRAMES[2][:9])
    check.feed(FRAMES[2][9:] + b"retry: 3000\n" + FRAMES[3])
    assert check.events == 4
    assert check.complete
    assert check.faults() == []


def test_an_event_that_is_no_number_is_a_fault() -> None:
    check = OrderCheck(2)
    check.feed(b'data: 0\n\nevent: failure\ndata: {"error":{}}\n\ndata: 1\n\n')
    assert check.events == 2
    assert [fault.kind for fault in check.faults()] == ["unexpected event b'{\"error\":{}}'"]


def test_more_events_than_asked_for_are_a_fault() -> None:
    check = OrderCheck(1)
    check.feed(b"data: 0\n\ndata: 1\n\n")
    assert check.faults() == [Fault("events too many", 1)]


@pytest.mark.parametrize("data", [b"no json", b"[]", b'{"choices":[]}', b'{"error":{}}'])
def test_what_is_no_chunk_of_the_script_is_unreadable(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"no chunk of the script|Expecting value"):
        read_chunk(data)


@pytest.mark.parametrize("words", [b"token", b"token one", b"a b c"])
def test_a_chunk_without_its_number_is_unreadable(words: bytes) -> None:
    with pytest.raises(ValueError, match=r"unpack|invalid literal"):
        read_chunk(b'{"choices":[{"delta":{"content":"%b"}}],"system_fingerprint":"fp_1"}' % words)


def test_the_upstream_paces_its_chunks_stamps_them_and_says_which_is_the_last() -> None:
    rate, chunks = 100.0, 30
    upstream = Upstream(rate)
    delays = Delays(upstream)
    with contextlib.closing(upstream), Load(upstream.port, (upstream,)) as load:
        request = get("/v1/chat/completions", upstream.port)
        load.add([Stream(request, delays.check())])
        began = time.monotonic()
        with delays:
            assert load.run(lambda: load.events() >= chunks, seconds=20)
        took = time.monotonic() - began
        upstream.finish()
        load.run_to_end(patience=10)
    assert load.faults() == []
    # A busy machine may make it late, and then up to ten chunks follow each other faster.
    assert took >= (chunks - 10) / rate
    assert len(delays.found) == chunks
    assert all(0 < delay < 10**9 for delay in delays.found)


def test_the_upstream_answers_at_once() -> None:
    upstream = Upstream(0.05)
    with contextlib.closing(upstream), Load(upstream.port, (upstream,)) as load:
        load.add([Stream(get("/", upstream.port), Delays(upstream).check())])
        assert load.run(lambda: load.events() == 1, seconds=10), "the second one comes after 20 s"


def test_the_upstream_ends_a_stream_that_is_to_be_short_and_goes_on_with_others() -> None:
    upstream = Upstream(1000.0)
    delays = Delays(upstream)
    long, *short = (Stream(get("/", upstream.port), delays.check()) for _ in range(3))
    with contextlib.closing(upstream), Load(upstream.port, (upstream,)) as load:
        load.add([long])
        assert load.run(lambda: long.began, seconds=20)
        for length, stream in enumerate(short, start=1):
            upstream.length = length
            load.add([stream])
            assert load.run(lambda: load.streams[-1].ended_at > 0, seconds=20)
        assert not long.ended_at
        upstream.finish()
        load.run_to_end(patience=10)
    assert load.faults() == []
    assert [stream.check.events for stream in short] == [1, 2]


def test_a_relay_that_leaves_out_the_last_chunk_is_found_out() -> None:
    upstream = Upstream(1000.0)
    check = Delays(upstream).check()
    with contextlib.closing(upstream), Load(upstream.port, (upstream,)) as load:
        load.add([Stream(get("/", upstream.port), check)])
        load.run(lambda: load.events() >= 3, seconds=20)
    assert check.faults() == []
    assert check.lacking() > 0


def test_the_upstream_waits_for_readers_that_are_far_behind() -> None:
    upstream = Upstream(1000.0)
    with contextlib.closing(upstream), Load(upstream.port, (upstream,)) as load:
        # Counted, but the upstream is not told.
        load.add([Stream(get("/", upstream.port), OrderCheck(10**9, lambda _: None))])
        assert load.run(lambda: upstream.sent > 0, seconds=20)
        load.run(lambda: False, seconds=0.3)
        sent = upstream.sent
    assert 0 < sent <= 25
