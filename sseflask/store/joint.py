"""Questions that several ask at once: equal ones share an answer, if it can be right for all."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from sseflask.loop import native
from sseflask.loop.callbacks import Done, call_guarded

Question = TypeVar("Question", bound=Hashable)


class Joint(Generic[Question]):
    """Asks each question once for all who ask it before its answer is begun. Thread-safe.

    An answer that has begun may lack what was stored since: who asks from then on gets the next.

    Args:
        ask: begins to find an answer, without blocking. It calls `Asked.begin` before it looks, and
            `Asked.answer` in the end, whatever happens; in any thread.
    """

    def __init__(self, ask: Callable[[Asked[Question]], None]) -> None:
        self._ask = ask
        self._lock = native.lock()
        self._not_begun: dict[Question, Asked[Question]] = {}

    def add(self, question: Question, done: Done) -> None:
        """Have ``done`` called with an answer. Never blocks."""
        with self._lock:
            asked = self._not_begun.get(question)
            if asked is not None:
                asked.dones.append(done)
                return
            asked = self._not_begun[question] = Asked(self, question, done)
        self._ask(asked)

    def close(self, asked: Asked[Question]) -> None:
        """Let nobody else share an answer. May be repeated."""
        with self._lock:
            if self._not_begun.get(asked.question) is asked:
                del self._not_begun[asked.question]


class Asked(Generic[Question]):
    """A question, and who waits for its answer."""

    __slots__ = ("_joint", "dones", "question")

    def __init__(self, joint: Joint[Question], question: Question, done: Done) -> None:
        self._joint = joint
        self.question = question
        self.dones = [done]

    def begin(self) -> None:
        """What is stored from here on need not be in the answer."""
        self._joint.close(self)

    def answer(self, answer: object, error: Exception | None) -> None:
        """Give the answer, or the error in its place, to all who wait for it."""
        self._joint.close(self)
        for done in self.dones:
            call_guarded("what waited for an answer of a store", done, answer, error)
