"""The writer of a run: what it stores of an answer, whatever the answer does."""

from __future__ import annotations

import math
import threading

import pytest

from sseflask.completions.outcome import Outcome
from sseflask.completions.usage import FRAME_BYTES
from sseflask.errors import Failure
from sseflask.runs.writer import Answer, Writer
from sseflask.store.run_api import Append
from tests.contract.run_stores import FINISHED

SECONDS = 10.0


class Written:
    """What a writer has stored, and whether its answer was closed."""

    def __init__(self, answer: Answer, most_bytes: float = math.inf) -> None:
        self.appends: list[Append] = []
        self.closed = threading.Event()
        self.changed = threading.Condition()
        self.writer = Writer(7, self.watched(answer), self.store, math.inf, most_bytes)

    def watched(self, answer: Answer) -> Answer:
        try:
            yield from answer
        finally:
            self.closed.set()

    def store(self, append: Append) -> None:
        with self.changed:
            self.appends.append(append)
            self.changed.notify_all()

    def has(self, amount: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.appends) >= amount, SECONDS)

    def run(self) -> list[Append]:
        """All of it."""
        self.writer._write()
        return self.appends


def test_an_answer_is_stored_in_order_with_its_end() -> None:
    def answer() -> Answer:
        yield [b"a", b"b"]
        yield []
        yield [b"c"]
        yield FINISHED

    assert Written(answer()).run() == [
        Append(7, 1, [b"a", b"b"]),
        Append(7, 3, []),
        Append(7, 3, [b"c"]),
        Append(7, 4, [], FINISHED),
    ]


def test_its_end_is_stored_before_its_response_is_dealt_with() -> None:
    stored: list[Append] = []

    def answer() -> Answer:
        yield FINISHED
        stored.extend(written.appends)

    written = Written(answer())
    assert written.run() == stored == [Append(7, 1, [], FINISHED)]
    assert written.closed.is_set()


@pytest.mark.parametrize("reads", [[[b"123"] * 4], [[b"123"]] * 4, [[b"123"] * 2] * 2])
def test_an_answer_that_is_too_large_fails_and_its_upstream_is_left(
    reads: list[list[bytes]],
) -> None:
    asked: list[list[bytes]] = []

    def answer() -> Answer:
        for read in [*reads, [b"never asked for"]]:
            asked.append(read)
            yield read

    enough = Written(answer(), 4 * (3 + FRAME_BYTES))
    *frames, end = enough.run()
    assert [frame for append in frames for frame in append.frames] == [b"123"] * 4
    assert end.outcome is not None
    assert end.outcome.failure is not None
    assert end.outcome.failure.code == "run_too_large"
    assert enough.closed.is_set()
    asked.clear()
    *frames, end = Written(answer(), 4 * (3 + FRAME_BYTES) - 1).run()
    assert [append.frames for append in frames] == reads[:-1]
    assert end.outcome is not None
    assert end.outcome.kind == "failed"
    assert asked == reads


def test_the_upstreams_last_frame_counts() -> None:
    def answer() -> Answer:
        yield Outcome("finished", frame=b"x" * 1000)

    assert Written(answer(), 1000 + FRAME_BYTES).run()[-1].outcome == Outcome(
        "finished", frame=b"x" * 1000
    )
    (end,) = Written(answer(), 1000).run()
    assert end.outcome is not None
    assert end.outcome.kind == "failed"
    assert end.outcome.frame is None


def test_an_answer_without_an_end(caplog: pytest.LogCaptureFixture) -> None:
    def answer() -> Answer:
        yield [b"a"]

    last = Written(answer()).run()[-1]
    assert last.outcome is not None
    assert last.outcome.failure is not None
    assert last.outcome.failure.code == "internal_error"
    assert "StopIteration" in caplog.text


def test_an_answer_of_nothing() -> None:
    def answer() -> Answer:
        yield Outcome("finished")

    assert Written(answer()).run() == [Append(7, 1, [], Outcome("finished"))]


def test_a_failure_is_its_end() -> None:
    failure = Failure("broken off", code="upstream_truncated")

    def answer() -> Answer:
        yield [b"a"]
        raise failure

    assert Written(answer()).run()[1:] == [Append(7, 2, [], Outcome.failed(failure))]


def test_an_error_of_ours_is_told_to_nobody_but_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def answer() -> Answer:
        yield [b"a"]
        raise KeyError("secret")

    last = Written(answer()).run()[-1]
    assert last.outcome is not None
    assert last.outcome.failure is not None
    assert last.outcome.failure.code == "internal_error"
    assert "secret" not in last.outcome.to_json()
    assert "secret" in caplog.text


def test_one_that_is_cancelled_closes_its_answer_and_stores_nothing_more() -> None:
    go_on = threading.Event()

    def answer() -> Answer:
        yield [b"a"]
        assert go_on.wait(SECONDS)
        yield [b"b"]
        yield [b"c"]
        yield FINISHED

    written = Written(answer())
    written.writer.start()
    written.has(1)
    written.writer.cancel()
    written.writer.cancel()
    go_on.set()
    assert written.closed.wait(SECONDS)
    assert written.appends == [Append(7, 1, [b"a"])]


def test_one_that_is_cancelled_before_it_begins_asks_for_nothing() -> None:
    asked: list[int] = []

    def answer() -> Answer:
        asked.append(1)
        yield [b"a"]
        yield FINISHED

    written = Written(answer())
    written.writer.cancel()
    assert written.run() == []
    assert asked == []


def test_one_that_is_cancelled_while_its_answer_fails_has_no_end() -> None:
    def answer() -> Answer:
        yield [b"a"]
        written.writer.cancel()
        raise Failure("closed")

    written = Written(answer())
    assert written.run() == [Append(7, 1, [b"a"])]


def test_how_long_it_may_be_alone() -> None:
    writer = Writer(7, nothing(), lambda _: None, 0.0)
    overdue = [writer.overdue]  # somebody is there
    writer.alone_since = 0.0
    overdue.append(writer.overdue)
    writer.grace = math.inf
    assert [*overdue, writer.overdue] == [False, True, False]


def nothing() -> Answer:
    yield FINISHED
