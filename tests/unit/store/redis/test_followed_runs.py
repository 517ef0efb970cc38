"""What a listener is given of followed runs, in whatever order and however often it comes."""

from __future__ import annotations

import random

import pytest

from sseflask.store.api import StoreError
from sseflask.store.redis import followed_runs as module
from sseflask.store.redis.followed_runs import FollowedRuns
from sseflask.store.run_api import PassedOn, Run, RunFrames
from tests.contract.run_stores import Listener, frames_of, numbered

RUN = Run("k", "k", "label", 0)
ENDED = RUN._replace(last=3, ended=4, outcome=b"finished")


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def runs(listener: Listener) -> FollowedRuns:
    return FollowedRuns(listener)


def batch(first: int, amount: int, run: str = "k") -> list[RunFrames]:
    return [RunFrames(run, first, frames_of(first, amount))]


def test_frames_are_given_once_and_without_a_hole(runs: FollowedRuns, listener: Listener) -> None:
    runs.write("k")
    assert runs.deliver(batch(1, 2)) == set()
    assert runs.deliver(batch(1, 2)) == set()
    assert runs.deliver(batch(4, 1)) == {"k"}, "there is a hole"
    assert runs.deliver(batch(2, 3) + batch(5, 1) + batch(1, 9, "unknown")) == set()
    assert listener.seen == {"k": numbered(1, 5)}
    assert runs.given("k") == 5
    assert runs.is_behind("k", 6)
    assert not runs.is_behind("k", 5)
    assert not runs.is_behind("unknown", 5)


def test_any_order_of_pieces_gives_all_in_order(runs: FollowedRuns, listener: Listener) -> None:
    chance = random.Random(7)
    runs.write("k")
    for _ in range(2000):
        first = chance.randrange(1, 100)
        missing = runs.deliver(batch(first, chance.randrange(1, 10)))
        given = runs.given("k")
        assert given is not None
        assert bool(missing) == (first > given + 1)
    assert listener.seen["k"] == numbered(1, len(listener.seen["k"]))


def test_what_comes_before_the_answer_is_not_given_but_remembered(
    runs: FollowedRuns, listener: Listener
) -> None:
    assert runs.expect("k")
    assert not runs.expect("k")
    assert (runs.given("k"), runs.followed()) == (None, [])
    assert runs.deliver(batch(3, 1)) == set()
    assert runs.begin("k", 2)
    runs.deliver(batch(3, 1))
    assert listener.seen == {"k": numbered(3, 1)}
    assert runs.expect("other")
    assert not runs.begin("other", 2)
    assert runs.followed() == ["k", "other"]


def test_an_end_that_comes_before_the_answer_is_looked_for_later(
    runs: FollowedRuns, listener: Listener
) -> None:
    runs.expect("k")
    runs.end(ENDED, here=False)
    assert listener.ends == []
    assert runs.begin("k", 0)
    runs.end(ENDED, here=False)
    assert listener.ends == [(ENDED, False)]


def test_an_end_is_told_once(runs: FollowedRuns, listener: Listener) -> None:
    runs.write("k")
    assert runs.is_own("k")
    for here in (True, True, False):
        runs.end(ENDED, here)
    assert listener.ends == [(ENDED, True)]
    assert (len(runs), runs.own, runs.is_own("k")) == (0, set(), False)


def test_an_inherited_run_goes_on_after_what_was_given(
    runs: FollowedRuns, listener: Listener
) -> None:
    runs.expect("k")
    runs.begin("k", 1)
    runs.deliver(batch(2, 2))
    inherited = Run("k", "id", "label", 3)
    runs.inherit(inherited, b"go on")
    assert runs.is_own("k")
    assert runs.deliver(batch(3, 3)) == set()
    assert listener.seen == {"k": numbered(2, 4)}
    assert listener.inheritance == [(inherited, b"go on")]


def test_what_is_inherited_before_the_answer_is_followed_from_there(
    runs: FollowedRuns, listener: Listener
) -> None:
    assert runs.expect("k")
    runs.deliver(batch(2, 2))
    runs.inherit(Run("k", "id", "label", 3), b"go on")
    runs.deliver(batch(4, 1))
    assert runs.begin("k", 1), "news have come before"
    assert runs.given("k") == 4
    runs.deliver(batch(5, 1))
    assert listener.seen == {"k": numbered(4, 2)}


def test_only_an_own_run_is_passed_on(runs: FollowedRuns, listener: Listener) -> None:
    runs.write("k")
    for _ in range(2):
        runs.pass_on("k")
    runs.expect("other")
    runs.begin("other", 0)
    runs.pass_on("other")
    ((run, error),) = listener.gone
    assert run == "k"
    assert isinstance(error, PassedOn)
    assert runs.followed() == ["other"]


def test_an_end_of_what_is_not_followed(runs: FollowedRuns, listener: Listener) -> None:
    runs.end(ENDED, here=False)
    assert listener.ends == []
    runs.end(ENDED, here=True)
    assert listener.ends == [(ENDED, True)]


def test_a_lost_run_with_an_error_is_followed_until_its_end(
    runs: FollowedRuns, listener: Listener
) -> None:
    error = StoreError("full")
    runs.write("k")
    runs.lose("k", error)
    runs.end(ENDED, here=True)
    runs.write("other")
    runs.lose("other", None)
    assert listener.gone == [("k", error), ("other", None)]
    assert listener.ends == [(ENDED, True)]
    assert len(runs) == 0


def test_a_listener_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Listener):
        def beat(self) -> None:
            raise ZeroDivisionError

    FollowedRuns(Failing()).beat()
    assert "ZeroDivisionError" in caplog.text


def test_few_ends_are_remembered(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ENDS", 3)
    few = FollowedRuns(listener)
    for number in range(10):
        few.end(ENDED._replace(key=str(number)), here=True)
    assert len(few._ended_here) == 3
