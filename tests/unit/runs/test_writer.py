"""The writer of a run: what it stores of an answer, whatever the answer does."""

from __future__ import annotations

import math
import threading
from typing import Any

import pytest

from sseflask.completions.completion_outcome import CompletionOutcome
from sseflask.errors import Failure
from sseflask.runs.outcome import Generated, NotedFrames, Outcome
from sseflask.runs.writer import Terms, Writer
from sseflask.store.run_api import FRAME_BYTES, Run, RunAppend, size_of
from tests.unit.store.sqlite.run_databases import FINISHED

SECONDS = 10.0

RUN = Run(7, "", "", 0)


class Written:
    """What a writer has stored, and whether its generator was closed."""

    def __init__(self, generated: Generated, max_bytes: float = math.inf) -> None:
        self.appends: list[RunAppend] = []
        self.closed = threading.Event()
        self.changed = threading.Condition()
        store: Any = self
        self.writer = Writer(RUN, store, Terms(bytes=max_bytes))
        self.generated = self.watched(generated)

    def watched(self, generated: Generated) -> Generated:
        try:
            yield from generated
        finally:
            self.closed.set()

    def wait_for_room(self, run: int) -> None:
        assert run == 7

    def append(self, append: RunAppend) -> None:
        with self.changed:
            self.appends.append(append)
            self.changed.notify_all()

    def has(self, amount: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.appends) >= amount, SECONDS)

    def run(self) -> list[RunAppend]:
        """All of it."""
        self.writer._advance(self.generated)
        return self.appends


def appends_of(*pieces: list[bytes] | NotedFrames, end: Outcome | None = None) -> list[RunAppend]:
    """What is stored of some pieces."""
    appends, first, size = [], 1, 0
    for piece in pieces:
        frames, notes = piece if isinstance(piece, NotedFrames) else (piece, [b""] * len(piece))
        size += size_of(frames)
        appends.append(RunAppend(7, first, frames, notes, size))
        first += len(frames)
    if end is not None:
        appends.append(RunAppend(7, first, [], [], size, end.ending()))
    return appends


def outcome_of(append: RunAppend) -> Outcome:
    assert append.ending is not None
    return Outcome.of(Run(7, "", "", 0, 1, append.ending.outcome))


def code_of(append: RunAppend) -> str | None:
    failure = outcome_of(append).failure
    assert failure is not None
    return failure.code


def test_an_answer_is_stored_in_order_with_its_end() -> None:
    def answer() -> Generated:
        yield [b"a", b"b"]
        yield []
        yield [b"c"]
        yield FINISHED

    assert Written(answer()).run() == appends_of([b"a", b"b"], [b"c"], end=FINISHED)


def test_notes_are_stored_with_their_frames() -> None:
    noted = NotedFrames([b"b", b"c"], [b"1", b"2"])

    def answer() -> Generated:
        yield [b"a"]
        yield noted
        yield FINISHED

    assert Written(answer()).run() == appends_of([b"a"], noted, end=FINISHED)


def test_its_end_is_stored_before_its_response_is_dealt_with() -> None:
    stored: list[RunAppend] = []

    def answer() -> Generated:
        yield FINISHED
        stored.extend(written.appends)

    written = Written(answer())
    assert written.run() == stored == appends_of(end=FINISHED)
    assert written.closed.is_set()


@pytest.mark.parametrize("reads", [[[b"123"] * 4], [[b"123"]] * 4, [[b"123"] * 2] * 2])
def test_an_answer_that_is_too_large_fails_and_its_upstream_is_left(
    reads: list[list[bytes]],
) -> None:
    asked: list[list[bytes]] = []

    def answer() -> Generated:
        for read in [*reads, [b"never asked for"]]:
            asked.append(read)
            yield read

    enough = Written(answer(), 4 * (3 + FRAME_BYTES))
    *frames, end = enough.run()
    assert [frame for append in frames for frame in append.frames] == [b"123"] * 4
    assert code_of(end) == "run_too_large"
    assert enough.closed.is_set()
    asked.clear()
    *frames, end = Written(answer(), 4 * (3 + FRAME_BYTES) - 1).run()
    assert [append.frames for append in frames] == reads[:-1]
    assert code_of(end) == "run_too_large"
    assert asked == reads


def test_what_an_outcome_has_beside_the_frames_counts() -> None:
    outcome = CompletionOutcome("finished", frame=b"x" * 1000)

    def answer() -> Generated:
        yield outcome

    assert Written(answer(), 1000 + FRAME_BYTES).run() == appends_of(end=outcome)
    (end,) = Written(answer(), 1000).run()
    assert code_of(end) == "run_too_large"


def test_an_answer_without_an_end(caplog: pytest.LogCaptureFixture) -> None:
    def answer() -> Generated:
        yield [b"a"]

    assert code_of(Written(answer()).run()[-1]) == "internal_error"
    assert "StopIteration" in caplog.text


def test_an_answer_of_nothing() -> None:
    def answer() -> Generated:
        yield Outcome("finished")

    assert Written(answer()).run() == appends_of(end=Outcome("finished"))


def test_a_failure_is_its_end() -> None:
    failure = Failure("broken off", code="upstream_truncated")

    def answer() -> Generated:
        yield [b"a"]
        raise failure

    assert Written(answer()).run() == appends_of([b"a"], end=Outcome.failed(failure))


def test_an_error_of_ours_is_in_the_log_alone(caplog: pytest.LogCaptureFixture) -> None:
    def answer() -> Generated:
        yield [b"a"]
        raise KeyError("secret")

    last = Written(answer()).run()[-1]
    assert code_of(last) == "internal_error"
    assert last.ending is not None
    assert b"secret" not in last.ending.outcome
    assert "secret" in caplog.text


def test_one_that_is_cancelled_closes_its_answer_and_stores_nothing_more() -> None:
    go_on = threading.Event()

    def answer() -> Generated:
        yield [b"a"]
        assert go_on.wait(SECONDS)
        yield [b"b"]
        yield [b"c"]
        yield FINISHED

    written = Written(answer())
    written.writer.start(written.generated)
    written.has(1)
    written.writer.cancel()
    written.writer.cancel()
    go_on.set()
    assert written.closed.wait(SECONDS)
    assert written.appends == appends_of([b"a"])


def test_one_that_is_cancelled_before_it_begins_asks_for_nothing() -> None:
    asked: list[int] = []

    def answer() -> Generated:
        asked.append(1)
        yield [b"a"]
        yield FINISHED

    written = Written(answer())
    written.writer.cancel()
    assert written.run() == []
    assert asked == []


def test_one_that_is_cancelled_while_its_answer_fails_has_no_end() -> None:
    def answer() -> Generated:
        yield [b"a"]
        written.writer.cancel()
        raise Failure("closed")

    written = Written(answer())
    assert written.run() == appends_of([b"a"])


def test_how_long_it_may_be_alone() -> None:
    writer = Written(nothing()).writer
    writer.terms = Terms(alone_seconds=0.0)
    overdue = [writer.overdue]  # it has a viewer
    writer.alone_since = 0.0
    overdue.append(writer.overdue)
    writer.terms = Terms()
    assert [*overdue, writer.overdue] == [False, True, False]


def nothing() -> Generated:
    yield FINISHED
