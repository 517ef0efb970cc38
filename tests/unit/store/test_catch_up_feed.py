"""Audiences that come and go, and which streams share a group."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sseflask.errors import Failure
from sseflask.loop import native
from sseflask.store.catch_up import Audience, CatchUp, Feed, Frame
from sseflask.transport.detached.group import DetachedStream, Group


class Watched(Feed[str]):
    """A feed that notes which audiences there are."""

    def __init__(self) -> None:
        super().__init__(native.rlock(), 3)
        self.there: list[str] = []

    def _added(self, audience: Audience[str]) -> None:
        self.there.append(audience.key)

    def _removed(self, audience: Audience[str]) -> None:
        self.there.remove(audience.key)


class Reader(CatchUp[str]):
    """One that has all, and waits."""

    def __init__(self, feed: Watched, key: str, *, resumable: bool = True) -> None:
        super().__init__(feed.lock, key)
        self._resumable = resumable
        self.view = object()
        with feed.lock:
            self._enter_feed(feed)

    @property
    def resumable(self) -> bool:
        return self._resumable

    @property
    def failure_frame(self) -> Callable[[Failure], bytes]:
        return lambda failure: str(failure).encode()

    def _next_step(self) -> Callable[[], bytes] | None:
        return None

    def _encode(self, frames: Sequence[Frame]) -> bytes:
        return b"".join(data for _, data in frames)


def joined(reader: Reader, chunked: bool = True, heartbeat: float = 15.0) -> Group:
    group = reader.join(chunked, heartbeat)
    assert group is not None
    return group


def test_readers_with_equal_keys_are_one_audience_until_the_last_has_left() -> None:
    feed = Watched()
    one, same, other = (Reader(feed, key) for key in "aab")
    assert feed.there == ["a", "b"]
    assert one._base == 3
    one.close()
    one.close()
    assert feed.there == ["a", "b"]
    other.close()
    assert feed.there == ["a"]
    same.close()
    assert feed.there == []


def test_a_group_is_for_streams_that_are_sent_the_same_bytes() -> None:
    feed = Watched()
    group = joined(Reader(feed, "a"))
    assert joined(Reader(feed, "a")) is group
    others = [
        joined(Reader(feed, "a"), chunked=False),
        joined(Reader(feed, "a"), heartbeat=1.0),
        joined(Reader(feed, "a", resumable=False)),
        joined(Reader(feed, "b")),
    ]
    assert len({group, *others}) == 5
    assert [each.resumable for each in others] == [True, True, False, True]
    assert group.failure_frame(Failure("broken")) == b"broken"


def test_an_audience_is_there_while_it_has_a_group_or_a_reader() -> None:
    feed = Watched()
    group = joined(Reader(feed, "a"))
    assert feed.there == ["a"], "one that joins is never missed in between"
    group.add(stream := DetachedStream(-1, group, 0.0, 0))
    reader = Reader(feed, "a")
    group.remove(stream)
    assert feed.there == ["a"]
    reader.close()
    assert feed.there == []
    group.on_empty(group)  # one that is late
    assert feed.there == []


def test_the_view_is_that_of_the_first_stream_of_the_groups_there_are() -> None:
    feed = Watched()
    first, second, third = (Reader(feed, "a") for _ in range(3))
    audience = feed._audiences["a"]
    groups = [joined(first), joined(second, heartbeat=1.0)]
    assert audience.view is first.view
    for group in groups:
        group.on_empty(group)
    joined(third)
    assert audience.view is third.view


def test_a_late_end_of_a_group_leaves_the_next_audience_alone() -> None:
    feed = Watched()
    group = joined(Reader(feed, "a"))
    group.on_empty(group)
    reader = Reader(feed, "a")
    group.on_empty(group)
    assert feed.there == ["a"]
    reader.close()
    assert feed.there == []
