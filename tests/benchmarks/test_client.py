"""The load client's parsers, with bytes cut anywhere."""

from __future__ import annotations

import pytest

from benchmarks.client.events import EventReader
from benchmarks.client.http import BadResponse, ResponseReader
from benchmarks.client.order import Fault, FloodCheck, OrderCheck
from benchmarks.frames import FRAMES, PERIOD
from benchmarks.upstream import chunk_number, script

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENTS = (
    b"data: 0\n\n: ping\ndata: 1\n\nretry: 500\nid: 2\nevent: x\ndata:2\ndata\n\n: only this\n\n"
)


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def cuts(data: bytes) -> list[list[bytes]]:
    """The data whole, byte by byte, and in two at every place."""
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


def test_the_upstreams_script_is_a_whole_response_with_numbered_chunks() -> None:
    reader = ResponseReader()
    check = OrderCheck(5, chunk_number)
    for piece in [HEAD, *script(5)]:
        check.feed(reader.feed(piece))
    assert reader.ended
    assert check.complete
    assert check.faults() == []
