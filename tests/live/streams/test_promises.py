"""What every stream is promised, on each kind of server: README's table, cell by cell."""

from __future__ import annotations

import json
import time

import pytest

from tests.live.kit.clients import open_stream, wake
from tests.live.kit.connection import Connection, fetch
from tests.live.kit.events import Sent
from tests.live.kit.kinds import on_every_server, on_gevent, on_portable
from tests.live.kit.servers import Server
from tests.live.kit.waiting import settled, until


def produced(server: Server, tag: str) -> int:
    return int(json.loads(fetch(server, f"/count?tag={tag}").body)["count"])


@on_every_server
def test_heartbeat_while_the_generator_is_silent(server: Server, tag: str) -> None:
    """Counted from the last event on, however long the headers might have waited for the first."""
    path = f"/silent?tag={tag}&heartbeat=0.2&first_byte=9999&wakes=1"
    with open_stream(server, path) as stream:
        assert stream.next().data == "first"
        assert stream.next_comments(3) == ["ping"] * 3
        wake(server, tag)
        assert stream.next().data == "woken 1"
        assert stream.rest() == []
    server.wait_for_mark(tag, "finished")
    server.wait_for_mark(tag, "finally")


@on_every_server
def test_no_heartbeat_is_needed_while_events_flow(server: Server) -> None:
    with open_stream(server, "/numbers?count=30&interval=0.02&heartbeat=5") as stream:
        assert [event.data for event in stream.rest()] == [str(n) for n in range(30)]
        assert stream.comments == []


@on_gevent
@pytest.mark.parametrize("abruptly", [False, True], ids=["closed", "reset"])
def test_leaving_a_silent_generator_is_noticed_at_once(
    server: Server, tag: str, abruptly: bool
) -> None:
    """The heartbeat is hours away and nothing wakes the generator: only the socket can tell."""
    with open_stream(server, f"/silent?tag={tag}&heartbeat=9999") as stream:
        assert stream.next().data == "first"
        if abruptly:
            stream.connection.reset()
    server.wait_for_mark(tag, "finally")
    assert server.marks(tag) == ["started", "finally"]


@on_gevent
def test_leaving_before_the_first_event_is_noticed_at_once(server: Server, tag: str) -> None:
    with open_stream(server, f"/late?tag={tag}&heartbeat=9999&first_byte=0.05"):
        server.wait_for_mark(tag, "started")
    server.wait_for_mark(tag, "finally")


@on_gevent
def test_leaving_before_the_headers_is_noticed_at_once(server: Server, tag: str) -> None:
    with Connection(server) as connection:
        connection.request(f"/late?tag={tag}&heartbeat=9999&first_byte=9999")
        server.wait_for_mark(tag, "started")
    server.wait_for_mark(tag, "finally")


@on_gevent
def test_leaving_a_busy_generator_is_noticed(server: Server, tag: str) -> None:
    with open_stream(server, f"/busy?tag={tag}&count=100000") as stream:
        assert stream.data(5)
    server.wait_for_mark(tag, "finally")
    assert server.marks(tag) == ["finally"], "it was ended long before it had finished"


@on_portable
def test_leaving_is_noticed_at_the_next_write_and_finally_run_at_the_next_yield(
    server: Server, tag: str
) -> None:
    with open_stream(server, f"/silent?tag={tag}&heartbeat=0.1") as stream:
        assert stream.next().data == "first"
        assert stream.next_comments(1) == ["ping"]

    def woken_until_it_ends() -> bool:
        wake(server, tag)
        return "finally" in server.marks(tag)

    until(woken_until_it_ends, "finally run at a yield", pause=0.2)
    assert server.marks(tag) == ["started", "finally"]


@on_portable
def test_leaving_a_generator_that_keeps_yielding_is_noticed(server: Server, tag: str) -> None:
    with open_stream(server, f"/busy?tag={tag}&count=100000") as stream:
        assert stream.data(5)
    server.wait_for_mark(tag, "finally")
    assert server.marks(tag) == ["finally"]


@on_every_server
def test_finally_is_run_after_a_proper_end(server: Server, tag: str) -> None:
    with open_stream(server, f"/numbers?tag={tag}&count=3") as stream:
        assert [event.data for event in stream.rest()] == ["0", "1", "2"]
    server.wait_for_mark(tag, "finally")
    assert server.marks(tag) == ["finished", "finally"]


@on_gevent
def test_a_burst_is_few_chunks(server: Server) -> None:
    with open_stream(server, "/burst?count=2000") as stream:
        assert [event.data for event in stream.rest()] == [f"{n} " for n in range(2000)]
        assert stream.connection.chunks < 200


@on_gevent
def test_each_burst_is_one_chunk(server: Server, tag: str) -> None:
    """Ten events that are ready together leave together, and nothing waits for more of them."""
    rounds = 5
    with open_stream(server, f"/bursts?tag={tag}&rounds={rounds}") as stream:
        assert stream.next().data == "ready"
        chunks = stream.connection.chunks
        for seen in range(rounds):
            wake(server, tag)
            assert stream.data(10) == [f"{seen} {n}" for n in range(10)]
        assert stream.rest() == []
        assert stream.connection.chunks - chunks < 3 * rounds


@on_portable
def test_a_burst_is_complete_and_in_order(server: Server) -> None:
    with open_stream(server, "/burst?count=2000") as stream:
        assert [event.data for event in stream.rest()] == [f"{n} " for n in range(2000)]


@on_every_server
def test_no_event_waits_long_behind_a_busy_generator(server: Server, tag: str) -> None:
    """800 ms of computing between its first and its last event, none of it waiting."""
    with open_stream(server, f"/busy?tag={tag}&count=400&milliseconds=2") as stream:
        waits = []
        for n in range(400):
            made, moment = (stream.next().data or "").split(" ")
            assert made == str(n)
            waits.append(time.monotonic() - float(moment))
        assert stream.rest() == []
    assert sorted(waits)[len(waits) // 2] < 0.2, "half of them arrive while it still computes"
    server.wait_for_mark(tag, "finished")


@on_gevent
def test_a_busy_generator_lets_others_be_served(server: Server, tag: str) -> None:
    with open_stream(server, f"/busy?tag={tag}&count=100000") as stream:
        assert stream.data(2)
        before = produced(server, tag)
        for n in range(5):
            assert fetch(server, f"/hello?q={n}").status == 200
        assert produced(server, tag) > before
        assert server.marks(tag) == []


@on_every_server
def test_a_producer_woken_by_a_callback_is_delivered_at_once(server: Server, tag: str) -> None:
    """No timer is near: the heartbeat is hours away, and each event follows its own wake."""
    rounds = 20
    with open_stream(server, f"/silent?tag={tag}&heartbeat=9999&wakes={rounds}") as stream:
        assert stream.next().data == "first"
        waits = []
        for n in range(1, rounds + 1):
            began = time.monotonic()
            wake(server, tag)
            assert stream.next().data == f"woken {n}"
            waits.append(time.monotonic() - began)
        # Some may be late because the machine is busy; a timer would delay all of them.
        assert sorted(waits)[rounds // 2] < 0.15, "each waits for some timer"
        assert stream.rest() == []


@on_gevent
def test_an_event_handed_on_by_another_thread_is_not_left_lying(server: Server) -> None:
    """Between two events nothing happens: one that misses its turn would wait for the next."""
    with open_stream(server, "/handed-on?count=5&interval=0.27&heartbeat=9999") as stream:
        assert stream.next().data == "ready"
        waits = []
        for n in range(5):
            made, moment = (stream.next().data or "").split(" ")
            assert made == str(n)
            waits.append(time.monotonic() - float(moment))
        assert stream.rest() == []
    assert sorted(waits)[2] < 0.03, f"half of them wait for some timer: {waits}"


@on_every_server
@pytest.mark.parametrize("plain", [False, True], ids=["response", "upgraded"])
def test_an_error_after_the_first_event_is_in_band_and_the_end_clean(
    server: Server, tag: str, plain: bool
) -> None:
    path = f"/error?tag={tag}&after=2" + ("&plain" if plain else "")
    with open_stream(server, path) as stream:
        assert stream.head.status == 200
        *events, failure = stream.rest()
    assert [event.data for event in events] == ["0", "1"]
    assert failure.event == "failure"
    error = json.loads(failure.data or "")["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "server_error"
    assert "secret detail" not in (failure.data or ""), "what went wrong is for the log"
    assert "secret detail" in server.log()
    server.wait_for_mark(tag, "finally")


@on_every_server
def test_a_failure_after_the_first_event_tells_what_it_says(server: Server, tag: str) -> None:
    with open_stream(server, f"/error?tag={tag}&after=1&failure") as stream:
        assert stream.next() == Sent(data="0")
        failure = stream.next()
        assert stream.rest() == []
    assert failure.event == "failure"
    assert json.loads(failure.data or "") == {
        "error": {
            "message": "too much of it",
            "type": "rate_limit_error",
            "param": "after",
            "code": "slow_down",
        }
    }
    server.wait_for_mark(tag, "finally")


@on_every_server
def test_a_client_that_never_reads_is_bounded(server: Server, tag: str) -> None:
    """The generator is held up once the buffers on the way are full, and ended when it leaves."""
    with open_stream(server, f"/flood?tag={tag}&heartbeat=60", receive_buffer=4096):
        until(lambda: produced(server, tag) > 1, "the first pieces")
        pieces = settled(lambda: produced(server, tag), "the generator held up", pause=0.4)
        assert pieces < 1000, "64 KiB each"
    server.wait_for_mark(tag, "finally")
    assert produced(server, tag) < pieces + 1000


@on_gevent
def test_a_client_that_never_reads_is_given_up_after_two_heartbeats(
    server: Server, tag: str
) -> None:
    with open_stream(server, f"/flood?tag={tag}&heartbeat=0.3", receive_buffer=4096):
        server.wait_for_mark(tag, "finally")


@on_every_server
def test_a_slow_reader_gets_everything_in_order(server: Server) -> None:
    """1.2 MB through a small window, read in small pieces, with pauses at the start."""
    with open_stream(server, "/burst?count=1200&size=1000", receive_buffer=4096) as stream:
        for n in range(1200):
            number, _, padding = (stream.next().data or "").partition(" ")
            assert number == str(n)
            assert padding == "x" * 1000
            if n < 20:
                time.sleep(0.02)  # being slow is what this client is for
        assert stream.rest() == []
