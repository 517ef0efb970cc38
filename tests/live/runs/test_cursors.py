"""Cursors that belong to no run, or to no place in it: they never begin a new run."""

from __future__ import annotations

import pytest

from tests.live.kit.publishing import error_of
from tests.live.kit.run_cursors import WAYS, by_header, by_query
from tests.live.kit.run_events import RESUMABLE
from tests.live.kit.runs import NO_RUN, ask, rest, run_of, start
from tests.live.kit.scripted import ScriptedAnswer
from tests.live.kit.servers import Server

MALFORMED = [
    "abc",
    "1",
    NO_RUN,
    f"{NO_RUN}.",
    f"{NO_RUN}.x",
    f"{NO_RUN}.-1",
    f"{NO_RUN}.+1",
    f"{NO_RUN}.1.1",
    f"{NO_RUN}.1_0",
    f"{NO_RUN}.1e1",
    f"{NO_RUN} .1",
    f".{NO_RUN}",
    f"{NO_RUN[:-1]}.1",
    f"{NO_RUN}0.1",
    f"{NO_RUN[:-1]}g.1",
    "k3v9m2xa-17",
    "x" * 3000,
]


@pytest.mark.parametrize("value", MALFORMED, ids=lambda value: value[-20:])
def test_what_is_no_id(runs: Server, script: ScriptedAnswer, value: str) -> None:
    """No run is begun instead: the client would get another answer than it began with."""
    for way, param in ((by_header, "Last-Event-ID"), (by_query, "last_event_id")):
        for format in ("chunks", "ui"):
            path, headers = way(format, script.message, value)
            assert error_of(ask(runs, path, headers=headers), 400)["param"] == param
    assert script.count == 0


@pytest.mark.parametrize("digits", ["0", "1", "7", "99999999999999999999"])
@pytest.mark.parametrize("format", RESUMABLE)
def test_an_unknown_run(runs: Server, script: ScriptedAnswer, format: str, digits: str) -> None:
    for way in WAYS:
        path, headers = way(format, script.message, f"{NO_RUN}.{digits}")
        answer = ask(runs, path, headers=headers)
        assert error_of(answer, 404)["code"] == "run_not_found"
    assert script.count == 0


@pytest.mark.parametrize("digits", ["99", "9223372036854775808", "9" * 400])
def test_beyond_a_run(runs: Server, script: ScriptedAnswer, digits: str) -> None:
    script.say("one", "two")
    with start(runs, script) as stream:
        run = run_of(stream)
        for way, param in ((by_header, "Last-Event-ID"), (by_query, "last_event_id")):
            path, headers = way("chunks", script.message, f"{run}.{digits}")
            assert error_of(ask(runs, path, headers=headers), 400)["param"] == param
        script.finish()
        assert stream.rest()
    assert script.count == 1


def test_the_id_of_another_run(runs: Server, script: ScriptedAnswer) -> None:
    """A run's own address and a cursor of another one do not go together."""
    script.say("x")
    script.finish()
    streams = [start(runs, script), start(runs, script)]
    one, other = map(run_of, streams)
    for stream in streams:
        rest(stream)
    error_of(ask(runs, f"/runs/{one}", headers={"Last-Event-ID": f"{other}.1"}), 400, 404)
