"""What every reader of a feed does, with frames that say their own numbers, and no I/O."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import pytest

from sseflask.errors import Failure
from sseflask.loop import native
from sseflask.store import catch_up
from sseflask.store.api import StoreError
from sseflask.store.catch_up import CatchUp, Feed, Frame
from sseflask.transport.detached.group import DetachedStream

SECONDS = 10.0


class Story(Feed[str]):
    """A feed and its store: frame 7 is ``7.``; a store may be ahead of its feed."""

    def __init__(self, stored: int = 0, position: int | None = None) -> None:
        super().__init__(native.rlock(), stored if position is None else position)
        self.stored = stored
        self.pages: list[tuple[int, int]] = []
        self.meanwhile: Callable[[], None] | None = None

    def read(self, after: int, limit: int) -> list[Frame]:
        self.pages.append((after, limit))
        numbers = range(after + 1, min(self.stored, after + limit) + 1)
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return [frame(number) for number in numbers]

    def grow(self, amount: int) -> None:
        """Store some frames, and pass them on."""
        self.stored += amount
        self.pass_on(self.stored)

    def pass_on(self, upto: int) -> None:
        frames = [frame(number) for number in range(self.position + 1, upto + 1)]
        with self.lock:
            self.position = upto
            for audience in self._audiences.values():
                for reader in audience.readers or ():
                    reader.put(frames, upto)


class Reader(CatchUp[str]):
    """Reads a story in pages of three, to its last frame if it has one."""

    def __init__(self, story: Story, after: int = 0, last: int = 0) -> None:
        super().__init__(story.lock, "key")
        self.story = story
        self._at = after
        self._last = last

    def _next_step(self) -> Callable[[], bytes] | None:
        if self._feed is None:
            return self._enter
        if self._at < self._base:
            return self._read_page
        return self._from_queue if self._queue else None

    def _enter(self) -> bytes:
        with self._lock:
            self._enter_feed(self.story)
        return b""

    def _read_page(self) -> bytes:
        frames = self.story.read(self._at, min(3, self._base - self._at))
        self._at = frames[-1][0]
        return self._encode(frames)

    def _encode(self, frames: Sequence[Frame]) -> bytes:
        numbers = [number for number, _ in frames]
        if self._last in numbers:
            frames = frames[: numbers.index(self._last) + 1]
            self._end()
        return b"".join(data for _, data in frames)


def frame(number: int) -> Frame:
    return number, b"%d." % number


def stored_bytes(first: int, last: int) -> bytes:
    return b"".join(b"%d." % number for number in range(first, last + 1))


def test_what_is_stored_is_read_in_pages_up_to_the_feeds_position() -> None:
    story = Story(stored=9, position=8)
    reader = Reader(story, after=1)
    assert list(reader.history()) == [stored_bytes(2, 4), stored_bytes(5, 7), stored_bytes(8, 8)]
    assert story.pages == [(1, 3), (4, 3), (7, 1)]


def test_what_comes_while_it_reads_follows_from_the_queue() -> None:
    story = Story(stored=2)
    story.meanwhile = lambda: story.grow(2)
    assert list(Reader(story).history()) == [stored_bytes(1, 2), stored_bytes(3, 4)]
    assert len(story.pages) == 1


def test_what_it_has_already_is_dropped_from_the_queue() -> None:
    """The client has got it from another process, whose tail was quicker."""
    story = Story(stored=4, position=1)
    reader = Reader(story, after=3)
    assert list(reader.history()) == []
    story.pass_on(2)
    assert list(reader.history()) == []
    story.pass_on(4)
    assert list(reader.history()) == [b"4."]
    story.pass_on(4)
    assert list(reader.history()) == []


@pytest.mark.parametrize("limits", [{"QUEUE": 3}, {"QUEUE_BYTES": 6}])
def test_a_queue_that_is_too_long_is_read_from_the_store(
    monkeypatch: pytest.MonkeyPatch, limits: dict[str, int]
) -> None:
    for name, value in limits.items():
        monkeypatch.setattr(catch_up, name, value)
    story = Story()
    reader = Reader(story)
    assert list(reader.history()) == []
    story.grow(3)
    assert story.pages == []
    story.grow(1)
    assert not reader._queue
    story.grow(1)
    assert list(reader.history()) == [stored_bytes(1, 3), stored_bytes(4, 4), stored_bytes(5, 5)]
    assert story.pages == [(0, 3), (3, 1)]


def test_a_queue_that_gets_too_long_while_it_is_taken_is_no_loss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(catch_up, "QUEUE", 2)
    story = Story()
    reader = Reader(story)
    assert list(reader.history()) == []
    story.grow(1)
    step = reader._next_step()
    story.grow(2)
    assert step is not None
    assert step() == b""
    assert list(reader.history()) == [stored_bytes(1, 3)]


def test_reading_again_forgets_the_queue() -> None:
    story = Story()
    reader = Reader(story)
    assert list(reader.history()) == []
    story.grow(2)
    reader.read_up_to(2)
    assert list(reader.history()) == [stored_bytes(1, 2)]
    assert story.pages == [(0, 2)]


def test_get_waits_for_a_time_only() -> None:
    story = Story(stored=1)
    reader = Reader(story)
    assert reader.get(0.0) == (b"1.", True)
    assert reader.get(0.001) is None
    story.grow(1)
    assert reader.get(SECONDS) == (b"2.", True)


def test_a_reader_that_waits_is_woken_by_what_comes() -> None:
    story = Story()
    reader = Reader(story, last=3)
    given: list[bytes] = []
    thread = threading.Thread(target=lambda: given.extend(reader.frames()))
    thread.start()
    for _ in range(3):
        story.grow(1)
    thread.join(SECONDS)
    assert not thread.is_alive()
    assert b"".join(given) == stored_bytes(1, 3)
    assert reader.ended


def test_what_comes_before_it_waits_wakes_it_at_once() -> None:
    story = Story()
    reader = Reader(story)
    assert reader._next() is None
    story.grow(1)
    reader._wait(None)  # for ever, had the wake-up been lost
    assert reader._next() == b"1."


def test_a_reader_that_is_abandoned_ends_wherever_it_is() -> None:
    story = Story(stored=3)
    reader = Reader(story)
    story.meanwhile = reader.abandon
    assert list(reader.history()) == [stored_bytes(1, 3)]
    with pytest.raises(StopIteration):
        reader.get(SECONDS)
    assert list(reader.frames()) == []
    assert not reader.ended
    assert not story._audiences


def test_one_that_is_abandoned_before_it_begins_never_enters() -> None:
    story = Story(stored=3)
    reader = Reader(story)
    reader.close()
    assert list(reader.history()) == []
    with story.lock:
        reader._enter_feed(story)
    assert not story._audiences


def test_after_its_end_nothing_follows() -> None:
    story = Story(stored=2)
    reader = Reader(story, last=2)
    assert reader.get(SECONDS) == (stored_bytes(1, 2), True)
    assert reader.ended
    story.grow(1)
    with pytest.raises(StopIteration):
        reader.get(SECONDS)
    assert reader.join(True, 15.0) is None
    assert not story._audiences


def test_it_joins_a_group_only_when_nothing_is_left_for_it() -> None:
    story = Story(stored=1)
    reader = Reader(story)
    assert reader.join(True, 15.0) is None
    assert list(reader.history()) == [b"1."]
    story.grow(1)
    assert reader.join(True, 15.0) is None
    assert list(reader.history()) == [b"2."]
    group = reader.join(True, 15.0)
    assert group is not None
    story.grow(1)
    assert not reader._queue, "the group gets it now"
    group.add(stream := DetachedStream(-1, group, 0.0, 0))
    reader.close()
    assert story._audiences
    group.remove(stream)
    assert not story._audiences


def test_a_store_that_can_not_be_read_is_a_failure_that_passes() -> None:
    story = Story(stored=1)

    def fail() -> None:
        raise StoreError("locked")

    story.meanwhile = fail
    reader = Reader(story)
    with pytest.raises(Failure, match="event store is not available") as caught:
        reader.get(SECONDS)
    assert caught.value.status == 503
    assert caught.value.transient
    assert reader.get(SECONDS) == (b"1.", True)
