"""Resuming a subscription: from exactly where it was, or with a gap."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.live.kit.clients import Stream, open_stream
from tests.live.kit.publishing import epoch, number, publish, publish_all
from tests.live.kit.servers import Server, free_port
from tests.live.kit.services import service
from tests.live.kit.stores import Store, on_every_store
from tests.live.kit.waiting import until


def resume(server: Server, target: str, last: str | None, *, in_query: bool = False) -> Stream:
    """Subscribe to a name, a pattern or a query, after this id."""
    path = f"/channels{target}" if target.startswith("?") else f"/channels/{target}"
    if in_query:
        return open_stream(server, f"{path}{'&' if '?' in path else '?'}last_event_id={last}")
    return open_stream(server, path, headers={} if last is None else {"Last-Event-ID": last})


def gap(stream: Stream) -> dict[str, Any]:
    """The gap that has to come next."""
    event = stream.next()
    assert event.event == "gap", event
    said: dict[str, Any] = json.loads(event.data or "")
    assert set(said) == {"reason", "channel", "last_event_id", "oldest", "newest"}
    return said


@on_every_store
@pytest.mark.parametrize("in_query", [False, True], ids=["header", "query"])
@pytest.mark.parametrize("position", [0, 1, 498, 499])
def test_resuming(channels: Server, channel: str, position: int, in_query: bool) -> None:
    """Replay, then live, without a seam."""
    ids = publish_all(channels, channel, [str(n) for n in range(500)])
    with resume(channels, channel, ids[position], in_query=in_query) as stream:
        ids += [publish(channels, channel, str(n)) for n in range(500, 510)]
        rest = [stream.next() for _ in range(position + 1, 510)]
    assert [(event.id, event.data, event.event) for event in rest] == [
        (ids[n], str(n), None) for n in range(position + 1, 510)
    ]


@on_every_store
def test_earliest(channels: Server, channel: str) -> None:
    with resume(channels, channel, "earliest", in_query=True) as nothing_yet:
        ids = publish_all(channels, channel, [str(n) for n in range(100)])
        with resume(channels, channel, "earliest", in_query=True) as everything:
            ids.append(publish(channels, channel, "100"))
            for stream in (nothing_yet, everything):
                assert [stream.next().id for _ in range(101)] == ids


def test_the_header_counts_more_than_the_query(channels: Server, channel: str) -> None:
    """A browser comes back to the address it had, with the header that it has since."""
    ids = publish_all(channels, channel, ["a", "b", "c"])
    for query in ("earliest", ids[0], "nonsense"):
        path = f"/channels/{channel}?last_event_id={query}"
        with open_stream(channels, path, headers={"Last-Event-ID": ids[1]}) as stream:
            assert stream.next().id == ids[2]


@on_every_store
def test_one_id_resumes_all_channels(channels: Server, channel: str) -> None:
    """An id of any of them, of one that is not subscribed to as well: there is one order."""
    ids = [publish(channels, f"{channel}.{n % 3}", str(n)) for n in range(30)]
    with resume(channels, f"?c={channel}.1&c={channel}.2", ids[10]) as stream:
        expected = [ids[n] for n in range(11, 30) if n % 3]
        assert [stream.next().id for _ in expected] == expected
    with resume(channels, f"{channel}.*", ids[0]) as stream:
        assert [stream.next().id for _ in range(29)] == ids[1:]
    with resume(channels, f"?c={channel}.1&c={channel}.**&c={channel}.1", ids[0]) as stream:
        assert [stream.next().id for _ in range(29)] == ids[1:]


def test_what_was_published_to_others_leaves_no_gap(channels: Server, channel: str) -> None:
    begins = publish(channels, f"{channel}.quiet", "before")
    publish_all(channels, f"{channel}.busy", [str(n) for n in range(2000)])
    with resume(channels, f"{channel}.quiet", begins) as stream:
        sent = publish(channels, f"{channel}.quiet", "after")
        assert stream.next().id == sent


@on_every_store
@pytest.mark.parametrize(
    "last",
    ["nonsense", "7", "-", "-1", "a-b-c", "%s-", "%s--1", "%s-1.5", "%s-+1", "%s- 1", "x" * 3000],
)
@pytest.mark.parametrize("in_query", [False, True], ids=["header", "query"])
def test_ids_that_nobody_gave_out(
    channels: Server, channel: str, last: str, in_query: bool
) -> None:
    """The gap comes first; the stream then goes on, and is resumed without another gap."""
    known = publish(channels, channel, "known")
    wrong = last.replace("%s", epoch(known))
    quoted = wrong.replace("+", "%2B").replace(" ", "%20") if in_query else wrong
    with resume(channels, channel, quoted, in_query=in_query) as stream:
        said = gap(stream)
        assert said["reason"] in ("unknown", "epoch")
        # A long id is repeated only as far as it helps to recognise it.
        assert (said["channel"], said["last_event_id"]) == (channel, wrong[:100])
        if said["reason"] == "epoch":
            assert stream.next().id == known, "all that this store has"
        sent = publish(channels, channel, "next")
        while (event := stream.next()).id != sent:
            assert event.id == known
    with resume(channels, channel, sent) as stream:
        sent = publish(channels, channel, "last")
        assert stream.next().id == sent


@on_every_store
def test_a_number_too_high(channels: Server, channel: str) -> None:
    """As after a crash that lost the end of the store, or from a client of another store."""
    known = publish(channels, channel, "known")
    wrong = f"{epoch(known)}-{number(known) + 10**6}"
    with resume(channels, channel, wrong) as stream:
        said = gap(stream)
        assert (said["reason"], said["last_event_id"]) == ("unknown", wrong)
        assert (said["oldest"], said["newest"]) == (known, known)
        sent = publish(channels, channel, "next")
        while (event := stream.next()).id != sent:
            assert event.id == known


def test_a_gap_for_each_that_is_concerned(channels: Server, channel: str) -> None:
    publish(channels, f"{channel}.a", "known")
    with resume(channels, f"?c={channel}.a&c={channel}.**", "nonsense") as stream:
        said = [gap(stream), gap(stream)]
    assert sorted(each["channel"] for each in said) == [f"{channel}.**", f"{channel}.a"]


def test_trimmed(tmp_path: Path) -> None:
    """Only for the channel that lost some, and only for clients that lack them."""
    with service(tmp_path, settings={"SSEFLASK_HISTORY_EVENTS": "10"}) as server:
        quiet = [publish(server, "quiet", str(n)) for n in range(3)]
        busy = publish_all(server, "busy", [str(n) for n in range(10)])

        def trimmed() -> bool:
            busy.extend(publish_all(server, "busy", [str(n) for n in range(1000)]))
            with resume(server, "busy", busy[0]) as stream:
                return stream.next().event == "gap"

        until(trimmed, "the oldest are removed", pause=0.2, seconds=40)
        # The last append: each may trim more while a client reads.
        last = publish(server, "busy", "last")
        with resume(server, "?c=busy&c=quiet", quiet[0]) as stream:
            said = gap(stream)
            assert (said["reason"], said["channel"]) == ("trimmed", "busy")
            assert said["last_event_id"] == quiet[0]
            events = [stream.next(), stream.next(), stream.next()]
            while events[-1].id != last:
                events.append(stream.next())
        assert [event.id for event in events[:2]] == quiet[1:]
        kept = [event.id for event in events[2:]]
        assert kept == [*busy, last][-len(kept) :], "the newest, in order"
        assert len(kept) > 10
        assert (said["oldest"], said["newest"]) == (kept[0], last)
        with resume(server, "busy", busy[-10]) as stream:
            assert [stream.next().id for _ in range(10)] == [*busy[-9:], last]
        with resume(server, "*", "earliest", in_query=True) as stream:
            everything = [stream.next()]
            while everything[-1].id != last:
                everything.append(stream.next())
        assert {event.event for event in everything} == {None}, "who knows nothing misses nothing"
        assert [event.id for event in everything[:3]] == quiet


def test_a_store_that_may_not_grow(tmp_path: Path) -> None:
    """More is published than its file may have, through two workers: it goes on, with a gap."""
    most, body = 1 << 20, "x" * 10_000
    settings = {"SSEFLASK_CHANNEL_LOG_BYTES": str(most), "SSEFLASK_PUBLISH_RATE_LIMIT": "off"}
    with service(tmp_path, workers=2, settings=settings) as server:
        first, *_ = publish_all(server, "busy", ["first", "second"])
        for turn in range(40):
            last = publish_all(server, f"busy.{turn}", [body] * 10)[-1]
            assert (tmp_path / "channels.sqlite").stat().st_size <= most
        # Together with SQLite's own.
        assert sum(path.stat().st_size for path in tmp_path.glob("channels.sqlite*")) < 8 * most
        with resume(server, "?c=busy&c=busy.*", first) as stream:
            said = [gap(stream), gap(stream)]
            assert [each["channel"] for each in said] == ["busy", "busy.*"]
            assert {each["reason"] for each in said} == {"trimmed"}
            assert (said[0]["oldest"], said[1]["newest"]) == (None, last)
            events = [stream.next()]
            while events[-1].id != last:
                events.append(stream.next())
        assert events[0].id == said[1]["oldest"]
        numbers = [number(event.id) for event in events if event.id]
        assert numbers == list(range(numbers[0], number(last) + 1))
        assert len(numbers) * len(body) > most / 2


@on_every_store
def test_trimmed_while_it_is_replayed(tmp_path: Path, store: Store) -> None:
    """A reader that is slower than the trimming gets a gap at the right place."""
    settings = {"SSEFLASK_HISTORY_EVENTS": "1000", "SSEFLASK_HEARTBEAT": "600", **store(tmp_path)}
    with service(tmp_path, settings=settings) as server:
        ids: list[str] = []
        for _ in range(50):
            ids += publish_all(server, "a", ["x" * 30_000] * 30)
        with open_stream(
            server, f"/channels/a?last_event_id={ids[500]}", receive_buffer=8192
        ) as stream:
            received = [stream.next().id or "" for _ in range(5)]

            def trimmed() -> bool:
                ids.extend(publish_all(server, "a", ["small"] * 1000))
                with resume(server, "a", ids[1400]) as another:
                    return another.next().event == "gap"

            until(trimmed, "what it has not read yet is removed")
            holes = []
            while received[-1] != ids[-1]:
                event = stream.next()
                if event.event == "gap":
                    holes.append((received[-1], json.loads(event.data or "")))
                else:
                    received.append(event.id or "")
    ((before, said),) = holes
    after = said["oldest"]
    assert (said["reason"], said["last_event_id"]) == ("trimmed", before)
    assert received == ids[501 : ids.index(before) + 1] + ids[ids.index(after) :]


def test_another_run_of_the_server(tmp_path: Path) -> None:
    """The same file: nothing has happened. Another one: another epoch, and nothing else will do."""
    port = free_port()
    with service(tmp_path, port=port) as server:
        ids = publish_all(server, "news", ["a", "b", "c"])
    with service(tmp_path, port=port) as server:
        with resume(server, "news", ids[0]) as stream:
            ids.append(publish(server, "news", "d"))
            assert [stream.next().id for _ in range(3)] == ids[1:]
        assert (epoch(ids[3]), len(set(ids))) == (epoch(ids[0]), 4)
    for ending in ("", "-wal", "-shm"):
        (tmp_path / f"channels.sqlite{ending}").unlink(missing_ok=True)
    with service(tmp_path, port=port, workers=2) as server:
        with resume(server, "news", ids[1]) as stream:
            said = gap(stream)
            assert (said["reason"], said["channel"]) == ("epoch", "news")
            assert said["last_event_id"] == ids[1]
            new = [publish(server, "news", text) for text in ("d", "e", "f", "g")]
            assert [stream.next().id for _ in range(4)] == new
        assert epoch(new[0]) != epoch(ids[0])
        with resume(server, "news", new[1]) as stream:
            assert [stream.next().id for _ in range(2)] == new[2:]
