from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sseflask.completions import failures
from sseflask.completions.failures import UpstreamFailure
from sseflask.completions.outcome import Kind, Outcome
from sseflask.errors import Failure

KINDS: list[Kind] = ["finished", "failed", "stopped", "cancelled"]

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
    Outcome,
    kind=st.sampled_from(KINDS),
    finish_reason=st.none() | texts,
    failure=st.none() | own | st.builds(UpstreamFailure, st.integers(400, 599), errors, headers),
    frame=st.none() | st.binary(max_size=20) | st.text(max_size=8).map(str.encode),
    usage=st.none() | st.dictionaries(texts, values, max_size=3),
)


def all_of(outcome: Outcome) -> tuple[Any, ...]:
    failure = outcome.failure
    told = None if failure is None else (type(failure), str(failure), vars(failure), failure.body())
    return outcome.kind, outcome.finish_reason, told, outcome.frame, outcome.usage


@given(outcomes)
def test_nothing_is_lost_when_it_is_stored(outcome: Outcome) -> None:
    text = outcome.to_json()
    assert text.isascii()
    assert "\n" not in text
    json.loads(text)
    assert all_of(Outcome.from_json(text)) == all_of(outcome)


def test_a_failure() -> None:
    failure = Failure("no")
    assert Outcome.failed(failure) == Outcome("failed", failure=failure)


@pytest.mark.parametrize("text", ["", "[]", "{}", "5", '{"kind": "finished"}'])
def test_what_is_no_outcome(text: str) -> None:
    with pytest.raises((ValueError, LookupError, TypeError)):
        Outcome.from_json(text)


def test_how_it_is_told_where_there_are_only_answers_and_errors() -> None:
    failure = Failure("no")
    assert Outcome("finished", "stop").told_as_failure() is None
    assert Outcome.failed(failure).told_as_failure() is failure
    told = [Outcome(kind).told_as_failure() for kind in KINDS[1:]]
    assert [(each.type, each.code) for each in told if each] == [
        ("server_error", "internal_error"),
        ("run_stopped", "stopped"),
        ("run_cancelled", "cancelled"),
    ]


def test_an_interruption() -> None:
    failure = failures.interrupted()
    assert (failure.status, failure.code, failure.type) == (503, "interrupted", "server_error")
    assert failure.message.startswith(
        "The server that ran this completion stopped before it was complete"
    )
