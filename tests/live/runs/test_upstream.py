"""Runs of an upstream that misbehaves: npm's aimock, where it can't with a proxy in front of it.

aimock itself does 429, 500, slow first tokens, silence in the middle, truncation, an answer that
is no stream, a frame of 1 MiB, and text cut between the halves of a character. What it can't do
the proxy does: bytes cut anywhere, a frame that is not JSON or no object, and an error
in the middle of an answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.live.kit.connection import fetch
from tests.live.kit.proxy import Proxy
from tests.live.kit.runs import run_of
from tests.live.kit.services import Upstream
from tests.live.kit.stage import (
    FORMATS,
    Stage,
    attach,
    ended,
    path,
    read,
    stage_service,
    start,
    take,
)

ERROR = b'{"error":{"message":"Overloaded","type":"server_error","param":null,"code":"overloaded"}}'
#: What stands in the frame, and what the proxy makes of it.
ALTERATIONS = (
    (b"MARKED 1", b'{"choices":[{"index":0,"delta":{"content":"gar'),
    (b"MARKED 3", ERROR),
    (b"MARKED 4", b'["no object"]'),
)


@pytest.fixture(scope="module")
def altered(tmp_path_factory: pytest.TempPathFactory, counted: Upstream) -> Iterator[Stage]:
    """Between the service and aimock is the proxy; more than 3 s of silence are too much."""
    directory = tmp_path_factory.mktemp("altered")
    settings = {"SSEFLASK_UPSTREAM_TIMEOUT": "3", "SSEFLASK_HEARTBEAT": "0.5"}
    with (
        Proxy(counted.port, alterations=ALTERATIONS) as proxy,
        stage_service(directory, proxy.port, workers=1, settings=settings) as server,
    ):
        yield Stage(server, counted)


@pytest.fixture(scope="module")
def in_crumbs(tmp_path_factory: pytest.TempPathFactory, counted: Upstream) -> Iterator[Stage]:
    """The proxy cuts what aimock sends into pieces of 1 to 3 bytes."""
    directory = tmp_path_factory.mktemp("crumbs")
    with (
        Proxy(counted.port, pieces=3) as proxy,
        stage_service(directory, proxy.port, workers=1) as server,
    ):
        yield Stage(server, counted)


@pytest.mark.parametrize("form", FORMATS)
def test_characters_cut_anywhere(in_crumbs: Stage, tag: str, form: str) -> None:
    """By TCP, within their bytes; and by the upstream, within their UTF-16."""
    with start(in_crumbs.server, f"paced story #{tag}", format=form) as stream:
        told = read(stream, form)
    assert (told.text, told.outcome, told.reason) == (
        in_crumbs.upstream.story * 4,
        "finished",
        "stop",
    )
    again = ended(in_crumbs.server, run_of(stream), form)
    assert [(each.event, each.data) for each in again.events] == [
        (each.event, each.data) for each in told.events
    ]


@pytest.mark.parametrize("form", FORMATS)
def test_the_ids_count_the_upstreams_frames(stage: Stage, tag: str, form: str) -> None:
    """However the bytes arrive, and whatever the format makes of a frame."""
    with start(stage.server, f"reasoning #{tag}", format=form) as stream:
        told = read(stream, form)
    run = run_of(stream)
    ids = [event.id for event in told.events if event.id is not None]
    assert all(each.startswith(f"{run}.") for each in ids)
    numbers = [int(each.rpartition(".")[2]) for each in ids]
    assert numbers == sorted(set(numbers))
    # In the chunks every frame is an event: they tell how many there are.
    frames = len(ended(stage.server, run, "chunks").events)
    if form == "chunks":
        assert numbers == list(range(1, frames + 1))
    assert numbers[-1] == frames


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("marked", "upstream_invalid"),
        ("marked as no object", "upstream_invalid"),
        ("marked as an error", "overloaded"),
    ],
)
def test_a_frame_that_is_none(altered: Stage, tag: str, message: str, code: str, form: str) -> None:
    """What came before it stays; the upstream's connection is closed; nothing comes after."""
    with start(altered.server, f"{message} #{tag}", format=form) as stream:
        told = read(stream, form)
    assert (told.text, told.outcome) == ("before, ", "failed")
    if form == "ui":
        assert told.error
    else:
        assert told.error["code"] == code
        assert told.error["message"]
    again = ended(altered.server, run_of(stream), form)
    assert (again.text, again.outcome, again.error) == (told.text, "failed", told.error)
    assert altered.upstream.asked_for(f"{message} #{tag}") == 1


def test_an_answer_that_is_no_stream(stage: Stage, tag: str) -> None:
    answer = fetch(stage.server, path(f"not a stream #{tag}"))
    assert answer.status == 502
    assert json.loads(answer.body)["error"]["code"] == "upstream_invalid"
    assert b"chaos" in answer.body, "what it is instead is quoted"


@pytest.mark.parametrize("form", FORMATS)
def test_one_chunk_of_a_mebibyte(stage: Stage, tag: str, form: str) -> None:
    with start(stage.server, f"huge #{tag}", format=form) as stream:
        told = read(stream, form)
    assert told.text == "0123456789abcdef" * 65536
    assert told.outcome == "finished"
    assert ended(stage.server, run_of(stream), form).text == told.text


@pytest.mark.parametrize("form", FORMATS)
def test_truncated(stage: Stage, tag: str, form: str) -> None:
    with start(stage.server, f"truncated #{tag}", format=form) as stream:
        told = read(stream, form)
    assert told.outcome == "failed"
    assert told.text
    assert stage.upstream.story.startswith(told.text)
    assert form == "ui" or told.error["code"] == "upstream_truncated"


@pytest.mark.parametrize("form", FORMATS)
def test_silent_beyond_the_limit(altered: Stage, tag: str, form: str) -> None:
    """In the middle of its answer, heartbeats notwithstanding; then its connection is closed."""
    destroyed = altered.upstream.destroyed()
    with start(altered.server, f"silent in the middle #{tag}", format=form) as stream:
        told = read(stream, form)
    assert told.outcome == "failed"
    assert told.text == altered.upstream.story[:16]
    assert form == "ui" or told.error["code"] == "upstream_timeout"
    assert set(stream.comments) == {"ping"}
    altered.upstream.wait_for_destroyed(destroyed + 1)


def test_silent_from_the_beginning(altered: Stage, tag: str) -> None:
    """The headers have gone out long before the limit: so it is told in the stream."""
    with start(altered.server, f"late #{tag}") as stream:
        told = read(stream, "chunks")
    assert (told.text, told.outcome) == ("", "failed")
    assert told.error["code"] == "upstream_timeout"


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("early", [False, True], ids=["waiting", "early"])
def test_a_slow_first_token(stage: Stage, tag: str, form: str, early: bool) -> None:
    options = {"heartbeat": "early"} if early else {}
    with start(stage.server, f"a little late #{tag}", format=form, **options) as stream:
        assert stream.next_comments(1) == ["ping"], "headers before the first token"
        told = read(stream, form)
    assert (told.text, told.outcome) == (stage.upstream.story, "finished")


@pytest.mark.parametrize(
    ("message", "status", "kind", "code", "after"),
    [
        ("limit", 429, "rate_limit_error", "rate_limit_exceeded", "1"),
        ("limit for a while", 429, "rate_limit_error", "rate_limit_exceeded", "7"),
        ("broken", 500, "server_error", None, None),
        ("bad request", 400, "invalid_request_error", "model_not_found", None),
    ],
)
def test_errors_instead_of_an_answer(
    stage: Stage,
    tag: str,
    message: str,
    status: int,
    kind: str,
    code: str | None,
    after: str | None,
) -> None:
    """With the upstream's status; in band where the headers went out early; asked once."""
    answer = fetch(stage.server, path(f"{message} #{tag}"))
    assert answer.status == status
    assert answer.headers.get("retry-after") == after
    error: dict[str, Any] = json.loads(answer.body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["code"]) == (kind, code)
    assert stage.upstream.asked_for(f"{message} #{tag}") == 1

    again = fetch(stage.server, f"/runs/{answer.headers['x-run-id']}")
    assert (again.status, json.loads(again.body)) == (status, {"error": error})

    with start(stage.server, f"{message} #{tag}-early", heartbeat="early") as stream:
        told = read(stream, "chunks")
    assert (told.text, told.outcome, told.error) == ("", "failed", error)


@pytest.mark.parametrize(
    ("message", "reason", "in_ui"),
    [
        ("story", "stop", "stop"),
        ("too long", "length", "length"),
        ("filtered", "content_filter", "content-filter"),
    ],
)
def test_every_finish(stage: Stage, tag: str, message: str, reason: str, in_ui: str) -> None:
    with start(stage.server, f"{message} #{tag}") as stream:
        run = run_of(stream)
        told = read(stream, "chunks")
    assert (told.text, told.outcome, told.reason) == (stage.upstream.story, "finished", reason)
    for form in ("text", "events", "ui"):
        told = ended(stage.server, run, form)
        assert (told.text, told.outcome) == (stage.upstream.story, "finished")
        assert told.reason == (in_ui if form == "ui" else reason)
    assert stage.upstream.asked_for(f"{message} #{tag}") == 1


@pytest.mark.parametrize("form", ["chunks", "events", "ui"])
def test_reasoning(stage: Stage, tag: str, form: str) -> None:
    with start(stage.server, f"reasoning #{tag}", format=form) as stream:
        told = read(stream, form)
    assert told.reasoning == "Let me think about it."
    assert (told.text, told.outcome) == (stage.upstream.story, "finished")


def test_tool_calls(stage: Stage, tag: str) -> None:
    expected = [("weather", {"city": "Zürich", "unit": "°C"}), ("clock", {})]
    with start(stage.server, f"tools #{tag}", format="ui") as stream:
        run = run_of(stream)
        told = read(stream, "ui")
    parts = [json.loads(event.data or "") for event in told.events if event.data != "[DONE]"]
    assert [
        (part["toolName"], part["input"])
        for part in parts
        if part["type"] == "tool-input-available"
    ] == expected
    assert told.reason == "tool-calls"

    told = ended(stage.server, run, "events")
    assert told.reason == "tool_calls"
    calls: dict[int, list[str]] = {}
    for event in told.events:
        if event.event == "tool_call":
            piece = json.loads(event.data or "")
            call = calls.setdefault(piece["index"], ["", ""])
            call[0] += piece.get("name") or ""
            call[1] += piece["arguments"]
    assert [(name, json.loads(arguments)) for name, arguments in calls.values()] == expected


def test_viewers_join_at_any_time(stage: Stage, tag: str) -> None:
    """Whoever comes in mid-answer gets it from the start; the rest only to those who ask for it."""
    with start(stage.server, f"paced story #{tag}", format="text") as stream:
        run = run_of(stream)
        before = take(stream, 20)
        last = next(event.id for event in reversed(before) if event.id)
        with (
            attach(stage.server, run) as from_the_start,
            attach(stage.server, run, headers={"Last-Event-ID": last}) as from_there,
        ):
            first = read(stream, "text", before)
            second = read(from_the_start, "text")
            third = read(from_there, "text", before)
    assert first.text == stage.upstream.story * 4
    assert first.events == second.events == third.events
    assert stage.upstream.asked_for(f"paced story #{tag}") == 1
