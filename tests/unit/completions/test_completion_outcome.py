from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sseflask.completions.completion_outcome import CompletionOutcome
from sseflask.errors import Failure
from sseflask.runs.outcome import Outcome, OutcomeKind, ReportedFailure, interrupted
from sseflask.store.run_api import Run

KINDS: list[OutcomeKind] = ["finished", "failed", "stopped", "cancelled"]

# JSON spells halves of surrogate pairs, and so may an upstream; two that meet become a letter.
texts = st.one_of(st.text(max_size=8), st.sampled_from(["\ud83c", "a\udf0a", "\udc80x"]))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
headers = st.dictionaries(texts, texts, max_size=2)
own = st.builds(
    Failure,
    texts,
    status=st.integers(400, 599),
    type=texts,
    param=st.none() | texts,
    code=st.none() | texts,
    headers=headers,
)
errors = st.builds(
    lambda further, needed: {**further, **needed},
    st.dictionaries(texts, values, max_size=3),
    st.fixed_dictionaries({"message": texts, "type": texts, "param": values, "code": values}),
)
outcomes = st.builds(
    CompletionOutcome,
    kind=st.sampled_from(KINDS),
    reason=st.none() | texts,
    failure=st.none() | own | st.builds(ReportedFailure, st.integers(400, 599), errors, headers),
    frame=st.none() | st.binary(max_size=20) | st.text(max_size=8).map(str.encode),
)


def all_of(outcome: CompletionOutcome) -> tuple[Any, ...]:
    failure = outcome.failure
    failures = None
    if failure is not None:
        failures = (str(failure), failure.status, failure.headers, failure.body(), failure.code)
    return outcome.kind, outcome.reason, failures, outcome.frame


def ended(outcome: bytes, notes: bytes = b"") -> Run:
    return Run(1, "id", "chat", 5, 6, outcome, notes)


@given(outcomes)
def test_nothing_is_lost_when_it_is_stored(outcome: CompletionOutcome) -> None:
    stored = outcome.ending().outcome
    json.loads(stored)
    read = CompletionOutcome.of(ended(stored))
    assert all_of(read) == all_of(outcome)
    assert all_of(CompletionOutcome.of(ended(read.ending().outcome))) == all_of(outcome)


def test_how_a_run_ended_that_its_writer_did_not_end() -> None:
    stopped = CompletionOutcome.of(ended(Outcome("stopped").ending().outcome, b"7"))
    usage = {"completion_tokens": 7, "partial": True}
    assert stopped == CompletionOutcome("stopped", usage=usage)
    assert stopped.details() == ', usage {"completion_tokens": 7, "partial": true}'
    assert CompletionOutcome.of(ended(Outcome("stopped").ending().outcome)).details() == (
        ", usage null"
    )


def test_a_failure() -> None:
    failure = Failure("no")
    assert CompletionOutcome.failed(failure) == CompletionOutcome("failed", failure=failure)


@pytest.mark.parametrize("text", ["", "[]", "{}", "5", '{"kind": "finished"}'])
def test_what_is_no_outcome(text: str) -> None:
    with pytest.raises((ValueError, LookupError, TypeError)):
        CompletionOutcome.of(ended(text.encode()))


def test_how_it_is_reported_where_there_are_only_answers_and_errors() -> None:
    failure = Failure("no")
    assert CompletionOutcome("finished", "stop").as_failure() is None
    assert CompletionOutcome.failed(failure).as_failure() is failure
    failures = [CompletionOutcome(kind).as_failure() for kind in KINDS[1:]]
    assert [(each.type, each.code) for each in failures if each] == [
        ("server_error", "internal_error"),
        ("run_stopped", "stopped"),
        ("run_cancelled", "cancelled"),
    ]


def test_an_interruption() -> None:
    failure = interrupted()
    assert (failure.status, failure.code, failure.type) == (503, "interrupted", "server_error")
    assert failure.message.startswith("The server that ran this stopped before it was complete")
