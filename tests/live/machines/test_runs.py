"""Runs across machines: begun on one, watched on another, stopped from a third."""

from __future__ import annotations

import contextlib
import time
from functools import partial

import pytest

from tests.live.kit.clients import Stream
from tests.live.kit.linked_machines import LinkedMachine
from tests.live.kit.machines import TOKEN
from tests.live.kit.publishing import error_of
from tests.live.kit.run_events import FORMATS, Decoded, end_of, expected_end, text_of
from tests.live.kit.runs import (
    all_at_once,
    ask_start,
    attach,
    bearer,
    replay,
    rest,
    run_of,
    start,
    stop,
    take,
)
from tests.live.kit.scripted import ScriptedAnswer, ScriptedUpstream
from tests.live.kit.waiting import until
from tests.live.machines.conftest import MAX_RUNS

#: Within this time a run whose machine is gone is ended by another one.
LIMIT = 10.0


def begin(machine: LinkedMachine, script: ScriptedAnswer, **parameters: str) -> Stream:
    return start(machine.port, script, TOKEN, **parameters)


def view(machine: LinkedMachine, run: str, format: str = "text", last: str | None = None) -> Stream:
    return attach(machine.port, run, format, last, TOKEN)


def assert_same_everywhere(
    machines: list[LinkedMachine], run: str, got: list[tuple[str, Stream]], end: str, text: str
) -> None:
    """These viewers see the same, and so does who asks later, on whatever machine."""
    read = [(format, rest(stream)) for format, stream in got]
    for machine in machines:
        later = {format: replay(machine.port, run, format, TOKEN) for format in FORMATS}
        for format, events in [*read, *later.items()]:
            assert events == later[format]
            assert end_of(format, events) == expected_end(format, end)
            assert text_of(format, events) == text


def test_begun_on_one_watched_on_another_stopped_from_a_third(
    trio: list[LinkedMachine], script: ScriptedAnswer
) -> None:
    one, two, three = trio
    script.say("one ", "two ")
    with contextlib.ExitStack() as stack:
        original = stack.enter_context(begin(one, script, format="text"))
        run = run_of(original)
        viewers = [(format, stack.enter_context(view(two, run, format))) for format in FORMATS]
        taken = take(viewers[1][1], 2)
        script.say("three")
        taken += take(viewers[1][1], 1)
        assert stop(three.port, run, TOKEN) == "stopped"
        script.wait_until_left()
        assert Decoded("text", [*taken, *rest(viewers.pop(1)[1])]).outcome == "stopped"
        assert_same_everywhere(trio, run, viewers, "stopped", "one two three")
        assert text_of("text", rest(original)) == "one two three"
    assert stop(two.port, run, TOKEN) == "stopped"
    assert script.count == 1


def test_a_viewer_goes_on_at_another_machine(
    trio: list[LinkedMachine], script: ScriptedAnswer
) -> None:
    one, two, three = trio
    script.say("one ")
    with begin(one, script, format="text", on_disconnect="continue") as original:
        run = run_of(original)
        seen = take(original, 1)
    for machine, text in ((two, "two "), (three, "three "), (one, "four")):
        with view(machine, run, last=seen[-1].id) as stream:
            script.say(text)
            seen += take(stream, 1)
    script.finish()
    with view(two, run, last=seen[-1].id) as stream:
        answer = Decoded("text", [*seen, *rest(stream)])
    assert (answer.text, answer.outcome) == ("one two three four", "finished")
    assert script.count == 1


def test_a_run_goes_on_while_a_client_is_on_any_machine(
    trio: list[LinkedMachine], script: ScriptedAnswer
) -> None:
    """It is cancelled when the last of them has left."""
    one, two, three = trio
    script.say("one ")
    with begin(one, script, format="text", on_disconnect="cancel") as original:
        run = run_of(original)
        take(original, 1)
        viewer = view(two, run)
    with viewer:
        take(viewer, 1)
        script.say("two ")
        take(viewer, 1)
        second = view(three, run)
    with second:
        take(second, 2)
        script.say("three")
        take(second, 1)
        assert not script.left()
    script.wait_until_left()
    for machine in trio:
        events = replay(machine.port, run, "text", TOKEN)
        assert end_of("text", events) == "cancelled"
        assert text_of("text", events) == "one two three"


def ask_with_key(machine: LinkedMachine, script: ScriptedAnswer) -> tuple[str, bool, str]:
    """The run, whether the answer is a repetition, and its text."""
    key = {"Idempotency-Key": f"key-{script.message}", **TOKEN}
    stream = start(machine.port, script, key, format="text")
    replayed = stream.head.headers.get("idempotency-replayed") == "true"
    return run_of(stream), replayed, text_of("text", rest(stream))


def test_a_repeated_request_at_all_machines_at_once(
    trio: list[LinkedMachine], scripted: ScriptedUpstream
) -> None:
    """One of them begins the run, whichever it is."""
    for _ in range(5):
        script = scripted.script()
        script.say("one")
        script.finish()
        jobs = [partial(ask_with_key, machine, script) for machine in (*trio, *trio)]
        answers = all_at_once(*jobs)
        assert len({run for run, _, _ in answers}) == 1
        assert sorted(replayed for _, replayed, _ in answers) == [False] + [True] * 5
        assert {text for _, _, text in answers} == {"one"}
        assert script.count == 1
        key = {"Idempotency-Key": f"key-{script.message}", **TOKEN}
        refused = ask_start(trio[2].server, f"{script.message} other", key, format="text")
        assert error_of(refused, 409)["code"] == "idempotency_key_reused"


def test_the_writers_machine_is_killed(trio: list[LinkedMachine], script: ScriptedAnswer) -> None:
    """Others end its runs; they can be read there too, when it is there again."""
    one, two, three = trio
    script.say("one ", "two")
    with contextlib.ExitStack() as stack:
        original = stack.enter_context(begin(one, script, format="text"))
        run = run_of(original)
        take(original, 2)
        viewers = [
            (format, stack.enter_context(view(machine, run, format)))
            for format in FORMATS
            for machine in (two, three)
        ]
        watched = stack.enter_context(view(two, run))
        assert text_of("text", take(watched, 2)) == "one two"
        killed_at = time.monotonic()
        one.kill()
        script.wait_until_left()
        rest(watched)
        assert time.monotonic() - killed_at < LIMIT
        one.start()
        assert_same_everywhere(trio, run, viewers, "error:interrupted", "one two")


@pytest.mark.parametrize("how", ["cut", "drop"])
def test_the_writers_machine_is_cut_off(
    trio: list[LinkedMachine], scripted: ScriptedUpstream, script: ScriptedAnswer, how: str
) -> None:
    """What it writes from then on is refused, however long it believes the run to be its own."""
    one, two, three = trio
    script.say("one ", "two")
    with contextlib.ExitStack() as stack:
        original = stack.enter_context(begin(one, script, format="text"))
        run = run_of(original)
        before = take(original, 2)
        viewers = [(format, stack.enter_context(view(two, run, format))) for format in FORMATS]
        watched = stack.enter_context(view(three, run))
        take(watched, 2)
        cut_at = time.monotonic()
        stack.callback(one.link.repair)
        getattr(one.link, how)()
        script.say(" three")
        rest(watched)
        assert time.monotonic() - cut_at < LIMIT
        one.link.repair()
        script.wait_until_left()
        one.wait_until_available()
        assert_same_everywhere(trio, run, viewers, "error:interrupted", "one two")
        seen = Decoded("text", [*before, *rest(original)])
        assert (seen.text, seen.outcome) == ("one two", "failed"), "nothing that is not stored"
    other = scripted.script()
    other.say("back")
    other.finish()
    with begin(one, other, format="text") as stream:
        found = run_of(stream)
        assert text_of("text", rest(stream)) == "back"
    assert text_of("text", replay(two.port, found, "text", TOKEN)) == "back"


@pytest.mark.parametrize("how", ["cut", "drop", "reset"])
def test_a_short_cut(trio: list[LinkedMachine], script: ScriptedAnswer, how: str) -> None:
    """Shorter than the lease: nothing has happened, for anybody."""
    one, two, _ = trio
    script.say("one ")
    with contextlib.ExitStack() as stack:
        original = stack.enter_context(begin(one, script, format="text"))
        run = run_of(original)
        watched = stack.enter_context(view(two, run))
        before = take(original, 1)
        assert take(watched, 1) == before
        for link in (one.link, two.link):
            stack.callback(link.repair)
            getattr(link, how)()
            script.say("more ")
            time.sleep(1)  # what is waited for is that nothing happens
            link.repair()
        before += take(original, 2)
        script.say("end")
        script.finish()
        answers = [Decoded("text", [*before, *rest(original)])]
        answers.append(Decoded("text", [*before[:1], *rest(watched)]))
    for answer in answers:
        assert (answer.text, answer.outcome) == ("one more more end", "finished")
    assert answers[0].events == answers[1].events
    assert script.count == 1


def test_running_runs_are_counted_across_machines(
    trio: list[LinkedMachine], scripted: ScriptedUpstream
) -> None:
    """Where they run makes no difference to their account; a machine that is killed has none."""
    counted = bearer("counted", complete=True)
    one, two, _ = trio
    scripts = []

    def more(machine: LinkedMachine) -> int:
        """One run more; the status of the answer."""
        script = scripted.script()
        script.say("one")
        scripts.append(script)
        with start(machine.port, script, counted, on_disconnect="continue") as stream:
            return stream.head.status

    assert [more(trio[n % 2]) for n in range(MAX_RUNS)] == [200] * MAX_RUNS
    assert [more(machine) for machine in trio] == [429] * 3
    one.kill()
    until(lambda: more(two) == 200, "its runs are ended", seconds=LIMIT, pause=0.2)
    one.start()
    for script in scripts:
        script.finish()


def comebacks(machine: LinkedMachine) -> int:
    """How often it has found its server again."""
    return machine.server.log().count("is there again")


def test_connections_that_are_forgotten(
    trio: list[LinkedMachine], scripted: ScriptedUpstream, script: ScriptedAnswer
) -> None:
    """A firewall between them was started again: what is open is a black hole for good."""
    one, two, _ = trio
    script.say("one ")
    with begin(one, script, format="text") as original:
        before = take(original, 1)
        found = [comebacks(machine) for machine in (one, two)]
        one.link.forget()
        two.link.forget()
        script.say("two")
        script.finish()
        answer = Decoded("text", [*before, *rest(original)])
        assert (answer.text, answer.outcome) == ("one two", "finished")
    # They notice by themselves. To ask them would mend one connection after the other.
    until(
        lambda: all(
            comebacks(machine) > before for machine, before in zip((one, two), found, strict=True)
        ),
        "both have noticed",
    )
    for machine in (one, two, one, two, one, two):
        other = scripted.script()
        other.say("at once")
        other.finish()
        with begin(machine, other, format="text") as stream:
            assert stream.head.status == 200
            assert text_of("text", rest(stream)) == "at once"
