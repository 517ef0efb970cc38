"""Which questions share an answer, and which must not."""

from __future__ import annotations

from typing import Any

import pytest

from sseflask.store.joint import Asked, Joint


class Answers:
    """What each asker was told, and the questions that were asked for them."""

    def __init__(self) -> None:
        self.asked: list[Asked[str]] = []
        self.told: list[tuple[str, Any, Exception | None]] = []
        self.joint = Joint[str](self.asked.append)

    def add(self, who: str, question: str) -> None:
        self.joint.add(question, lambda answer, error: self.told.append((who, answer, error)))


def test_who_asks_the_same_before_it_is_begun_shares_the_answer() -> None:
    answers = Answers()
    for who, question in (("a", "x"), ("b", "y"), ("c", "x")):
        answers.add(who, question)
    x, y = answers.asked
    assert (x.question, y.question) == ("x", "y")
    x.begin()
    x.answer(1, None)
    y.begin()
    y.answer(2, None)
    assert answers.told == [("a", 1, None), ("c", 1, None), ("b", 2, None)]


def test_who_asks_after_it_was_begun_gets_the_next() -> None:
    answers = Answers()
    answers.add("a", "x")
    answers.asked[0].begin()
    answers.add("b", "x")
    assert len(answers.asked) == 2
    answers.asked[0].answer("old", None)
    assert answers.told == [("a", "old", None)]
    answers.asked[1].begin()
    answers.asked[1].answer("new", None)
    assert answers.told == [("a", "old", None), ("b", "new", None)]


def test_an_error_is_for_all_and_the_next_is_asked_anew() -> None:
    answers, error = Answers(), ValueError()
    answers.add("a", "x")
    answers.add("b", "x")
    answers.asked[0].answer(None, error)  # it was never begun
    assert answers.told == [("a", None, error), ("b", None, error)]
    answers.add("c", "x")
    answers.asked[1].answer(3, None)
    assert answers.told[2:] == [("c", 3, None)]


def test_one_that_fails_takes_the_answer_from_nobody(caplog: pytest.LogCaptureFixture) -> None:
    answers = Answers()

    def fails(_answer: object, _error: Exception | None) -> None:
        raise ZeroDivisionError

    answers.joint.add("x", fails)
    answers.add("b", "x")
    answers.asked[0].answer(1, None)
    assert answers.told == [("b", 1, None)]
    assert "ZeroDivisionError" in caplog.text
