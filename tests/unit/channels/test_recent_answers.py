"""Which answers of the store are given again: none that lacks something, none for long."""

from __future__ import annotations

from sseflask.channels.recent_answers import RecentAnswers
from sseflask.store.api import Entry, History, HistoryQuery
from sseflask.store.names import Pattern

PATTERNS = (Pattern.parse("a"),)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def query(after: int) -> HistoryQuery:
    return HistoryQuery(PATTERNS, after, 100)


def answer(newest: int, epoch: str = "e") -> History:
    return History(epoch, [Entry(newest, "a", b"x")], newest, [], newest)


def test_an_answer_that_has_everything_is_given_again() -> None:
    answers, history = RecentAnswers(), answer(5)
    assert answers.get(query(4), "e", 5) is None
    answers.keep(query(4), history)
    assert answers.get(query(4), "e", 5) is history
    assert answers.get(query(4), "e", 3) is history
    assert answers.get(query(4), "e", 6) is None, "it lacks an event"
    assert answers.get(query(3), "e", 5) is None
    assert answers.get(query(4), "other", 5) is None
    later = answer(6)
    answers.keep(query(4), later)
    assert answers.get(query(4), "e", 6) is later


def test_it_is_not_given_for_long() -> None:
    clock = Clock()
    answers = RecentAnswers(clock)
    answers.keep(query(4), answer(5))
    clock.now += 0.9
    assert answers.get(query(4), "e", 5) is not None
    clock.now += 0.2
    assert answers.get(query(4), "e", 5) is None


def test_the_last_few_are_there() -> None:
    answers = RecentAnswers()
    for after in range(100):
        answers.keep(query(after), answer(100))
    there = [after for after in range(100) if answers.get(query(after), "e", 100)]
    assert there == list(range(92, 100))
