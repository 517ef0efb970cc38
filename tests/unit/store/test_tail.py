"""What is news to a process: by values, and against a list of all that happened."""

from __future__ import annotations

from collections.abc import Sequence

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sseflask.store.api import Entry
from sseflask.store.tail import News, Notice, Page, Skipped, Tail


def entries(*numbers: int) -> list[Entry]:
    return [Entry(number, "a", b"%d" % number) for number in numbers]


def close(number: int, after: int, body: str = "x") -> Notice:
    return Notice(number, after, "close", body)


def opened(newest: int = 0, last_notice: int = 0) -> Tail:
    tail = Tail()
    assert tail.open("e", newest, last_notice)
    return tail


def taken(tail: Tail, page: Sequence[Entry], newest: int, *, complete: bool = True) -> list[News]:
    return list(tail.take_page(Page(page, complete), newest))


def test_what_was_there_before_is_no_news() -> None:
    tail = opened(7, 3)
    assert (tail.epoch, tail.position, tail.noticed) == ("e", 7, 3)
    assert taken(tail, entries(8, 9), 9) == [entries(8, 9)]
    assert not tail.open("e", 9, 3)
    assert tail.position == 9


def test_another_store_begins_anew() -> None:
    tail = opened(7, 3)
    assert tail.open("f", 2, 0)
    assert (tail.epoch, tail.position, tail.noticed) == ("f", 2, 0)


def test_an_older_copy_is_told_from_the_same_store() -> None:
    tail = opened(7)
    assert tail.has_gone_back("e", 6)
    assert not tail.has_gone_back("e", 7)
    assert not tail.has_gone_back("f", 1)


@pytest.mark.parametrize(
    ("first", "last_notice", "fits"), [(8, 3, True), (9, 3, False), (8, 4, False)]
)
def test_own_events_are_taken_if_nothing_comes_before_them(
    first: int, last_notice: int, fits: bool
) -> None:
    tail = opened(7, 3)
    assert tail.take_own(entries(first, first + 1), last_notice) == fits
    assert tail.position == (first + 1 if fits else 7)


def test_what_a_page_lacks_was_skipped() -> None:
    assert taken(opened(), entries(2, 3), 3) == [Skipped(3), entries(2, 3)]
    assert taken(opened(), [], 3) == [Skipped(3)]
    # After a page that is not complete there may be more.
    tail = opened()
    assert taken(tail, entries(1, 2), 9, complete=False) == [entries(1, 2)]
    assert tail.position == 2
    assert taken(tail, entries(3, 9), 9, complete=False) == [Skipped(9), entries(3, 9)]


def test_events_above_the_newest_number_wait_for_the_notices_before_them() -> None:
    tail = opened()
    assert taken(tail, entries(1, 2, 3), 2) == [entries(1, 2)]
    assert tail.position == 2
    assert tail.take_notices([close(1, 2)], 1) == [close(1, 2)]
    assert taken(tail, entries(3), 3) == [entries(3)]


def test_notices_are_put_between_the_events_where_they_were_stored() -> None:
    tail = opened()
    notices = [close(1, 0), close(2, 2), close(3, 2), close(4, 3), close(5, 9)]
    assert tail.take_notices(notices, 5) == notices[:1]
    assert taken(tail, entries(1, 2, 3), 3) == [
        entries(1, 2),
        *notices[1:3],
        entries(3),
        notices[3],
    ]
    assert tail.noticed == 4
    # The last one is read again before the events that come before it.
    assert tail.take_notices(notices[4:], 5) == []
    assert taken(tail, entries(9), 9) == [Skipped(9), entries(9), notices[4]]


def test_notices_that_were_missed_close_everything(caplog: pytest.LogCaptureFixture) -> None:
    tail = opened(4)
    assert tail.take_notices([close(3, 4)], 3) == [close(2, 4, "**"), close(3, 4)]
    assert tail.noticed == 3
    assert tail.take_notices([], 5) == [close(5, 4, "**")]
    assert "missed" in caplog.text


class Following(RuleBasedStateMachine):
    """One process follows a store that all write to, itself as well, and that forgets.

    The list of all that happened is the oracle: events by number, notices by what they came after.
    """

    @initialize(events=st.integers(0, 3), notices=st.integers(0, 2))
    def begin(self, events: int, notices: int) -> None:
        self.newest, self.first_kept, self.kept_notices = 0, 1, 1000
        self.notices: list[Notice] = []
        self.news: list[News] = []
        self.publish(events)
        self.notify(notices)
        self.tail = Tail()
        assert self.tail.open("e", self.newest, len(self.notices))
        self.start = self.newest
        self.start_notice = len(self.notices)

    @rule(amount=st.integers(1, 5))
    def publish(self, amount: int) -> None:
        """Another process stores events."""
        self.newest += amount

    @rule(amount=st.integers(1, 3))
    def notify(self, amount: int) -> None:
        for _ in range(amount):
            self.notices.append(close(len(self.notices) + 1, self.newest))

    @rule(left=st.integers(0, 4))
    def trim(self, left: int) -> None:
        self.first_kept = max(self.first_kept, self.newest + 1 - left)

    @rule(kept=st.integers(0, 4))
    def forget_notices(self, kept: int) -> None:
        self.kept_notices = kept

    @rule(amount=st.integers(1, 4))
    def publish_here(self, amount: int) -> None:
        own = entries(*range(self.newest + 1, self.newest + amount + 1))
        self.newest += amount
        if self.tail.take_own(own, len(self.notices)):
            self.news.append(own)
        else:
            self.look(1000, 0, 0)

    @rule(page=st.integers(1, 6), more=st.integers(0, 3), notices=st.integers(0, 2))
    def look(self, page: int, more: int, notices: int) -> None:
        """Read the end in pages; before and between them something else may happen."""
        newest, last_notice = self.newest, len(self.notices)
        if last_notice != self.tail.noticed:
            self.publish(more)
            self.notify(notices)
            kept = self.notices[max(self.tail.noticed, len(self.notices) - self.kept_notices) :]
            self.news += self.tail.take_notices(kept, last_notice)
        while self.tail.position < newest:
            before = self.tail.position
            there = range(max(before + 1, self.first_kept), self.newest + 1)[:page]
            self.news += self.tail.take_page(Page(entries(*there), len(there) < page), newest)
            assert before < self.tail.position <= newest
            self.publish(more)

    @invariant()
    def all_is_news_once_in_one_order(self) -> None:
        if not hasattr(self, "tail"):
            return
        given, skipped, noticed = self.start, self.start, self.start_notice
        for each in self.news:
            if isinstance(each, Skipped):
                assert each.last >= given
                skipped = each.last
            elif isinstance(each, Notice):
                if each.body == "**":
                    assert each.number > noticed  # it may come too early, but not too late
                else:
                    assert each == self.notices[noticed]
                    assert given <= each.after
                    assert max(given, skipped) >= each.after
                noticed = each.number
            else:
                for entry in each:
                    assert entry.number > given
                    # Without a hole, or it was said, and was so.
                    assert entry.number == given + 1 or (
                        entry.number <= skipped + 1 and self.first_kept > given + 1
                    )
                    given = entry.number
                    # A notice that came before it was given before it.
                    assert all(each.after >= given for each in self.notices[noticed:])
        assert max(given, skipped) == self.tail.position
        assert noticed == self.tail.noticed


TestFollowing = Following.TestCase
TestFollowing.settings = settings(max_examples=200, stateful_step_count=30)
