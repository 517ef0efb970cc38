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

from tests.live.kit.aimock import Aimock
from tests.live.kit.connection import fetch
from tests.live.kit.proxy import Proxy
from tests.live.kit.run_events import FORMATS, last_id
from tests.live.kit.runs import attach, read, read_run, run_of, run_service, start, start_path, take
from tests.live.kit.servers import Server

ERROR = b'{"error":{"message":"Overloaded","type":"server_error","param":null,"code":"overloaded"}}'
#: What stands in the frame, and what the proxy makes of it.
ALTERATIONS = (
    (b"MARKED 1", b'{"choices":[{"index":0,"delta":{"content":"gar'),
    (b"MARKED 3", ERROR),
    (b"MARKED 4", b'["no object"]'),
)


@pytest.fixture(scope="module")
def altered(tmp_path_factory: pytest.TempPathFactory, upstream: Aimock) -> Iterator[Server]:
    """Between the service and aimock is the proxy; more than 3 s of silence are too much."""
    directory = tmp_path_factory.mktemp("altered")
    settings = {"SSEFLASK_UPSTREAM_TIMEOUT": "3", "SSEFLASK_HEARTBEAT": "0.5"}
    with (
        Proxy(upstream.port, alterations=ALTERATIONS) as proxy,
        run_service(directory, proxy.port, workers=1, settings=settings) as server,
    ):
        yield server


@pytest.fixture(scope="module")
def in_crumbs(tmp_path_factory: pytest.TempPathFactory, upstream: Aimock) -> Iterator[Server]:
    """The proxy cuts what aimock sends into pieces of 1 to 3 bytes."""
    directory = tmp_path_factory.mktemp("crumbs")
    with (
        Proxy(upstream.port, pieces=3) as proxy,
        run_service(directory, proxy.port, workers=1) as server,
    ):
        yield server


@pytest.mark.parametrize("format", FORMATS)
def test_characters_cut_anywhere(
    in_crumbs: Server, upstream: Aimock, tag: str, format: str
) -> None:
    """By TCP, within their bytes; and by the upstream, within their UTF-16."""
    with start(in_crumbs, f"paced story #{tag}", format=format) as stream:
        decoded = read(stream, format)
    assert (decoded.text, decoded.outcome, decoded.reason) == (
        upstream.story * 4,
        "finished",
        "stop",
    )
    again = read_run(in_crumbs, run_of(stream), format)
    assert [(each.event, each.data) for each in again.events] == [
        (each.event, each.data) for each in decoded.events
    ]


@pytest.mark.parametrize("format", FORMATS)
def test_the_ids_count_the_upstreams_frames(relay: Server, tag: str, format: str) -> None:
    """However the bytes arrive, and whatever the format makes of a frame."""
    with start(relay, f"reasoning #{tag}", format=format) as stream:
        decoded = read(stream, format)
    run = run_of(stream)
    ids = [event.id for event in decoded.events if event.id is not None]
    assert all(each.startswith(f"{run}.") for each in ids)
    numbers = [int(each.rpartition(".")[2]) for each in ids]
    assert numbers == sorted(set(numbers))
    # In the chunks every frame is an event: they tell how many there are.
    frames = len(read_run(relay, run, "chunks").events)
    if format == "chunks":
        assert numbers == list(range(1, frames + 1))
    assert numbers[-1] == frames


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("marked", "upstream_invalid"),
        ("marked as no object", "upstream_invalid"),
        ("marked as an error", "overloaded"),
    ],
)
def test_a_frame_that_is_none(
    altered: Server, upstream: Aimock, tag: str, message: str, code: str, format: str
) -> None:
    """What came before it stays; the upstream's connection is closed; nothing comes after."""
    with start(altered, f"{message} #{tag}", format=format) as stream:
        decoded = read(stream, format)
    assert (decoded.text, decoded.outcome) == ("before, ", "failed")
    if format == "ui":
        assert decoded.error
    else:
        assert decoded.error["code"] == code
        assert decoded.error["message"]
    again = read_run(altered, run_of(stream), format)
    assert (again.text, again.outcome, again.error) == (decoded.text, "failed", decoded.error)
    assert upstream.asked_for(f"{message} #{tag}") == 1


def test_an_answer_that_is_no_stream(relay: Server, tag: str) -> None:
    answer = fetch(relay, start_path(f"not a stream #{tag}"))
    assert answer.status == 502
    assert json.loads(answer.body)["error"]["code"] == "upstream_invalid"
    assert b"chaos" in answer.body, "what it is instead is quoted"


@pytest.mark.parametrize("format", FORMATS)
def test_one_chunk_of_a_mebibyte(relay: Server, tag: str, format: str) -> None:
    with start(relay, f"huge #{tag}", format=format) as stream:
        decoded = read(stream, format)
    assert decoded.text == "0123456789abcdef" * 65536
    assert decoded.outcome == "finished"
    assert read_run(relay, run_of(stream), format).text == decoded.text


@pytest.mark.parametrize("format", FORMATS)
def test_truncated(relay: Server, upstream: Aimock, tag: str, format: str) -> None:
    with start(relay, f"truncated #{tag}", format=format) as stream:
        decoded = read(stream, format)
    assert decoded.outcome == "failed"
    assert decoded.text
    assert upstream.story.startswith(decoded.text)
    assert format == "ui" or decoded.error["code"] == "upstream_truncated"


@pytest.mark.parametrize("format", FORMATS)
def test_silent_beyond_the_limit(altered: Server, upstream: Aimock, tag: str, format: str) -> None:
    """In the middle of its answer, heartbeats notwithstanding; then its connection is closed."""
    destroyed = upstream.destroyed()
    with start(altered, f"silent in the middle #{tag}", format=format) as stream:
        decoded = read(stream, format)
    assert decoded.outcome == "failed"
    assert decoded.text == upstream.story[:16]
    assert format == "ui" or decoded.error["code"] == "upstream_timeout"
    assert set(stream.comments) == {"ping"}
    upstream.wait_for_destroyed(destroyed + 1)


def test_silent_from_the_beginning(altered: Server, tag: str) -> None:
    """The headers have been sent long before the limit: so the failure is in band."""
    with start(altered, f"late #{tag}") as stream:
        decoded = read(stream, "chunks")
    assert (decoded.text, decoded.outcome) == ("", "failed")
    assert decoded.error["code"] == "upstream_timeout"


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("early", [False, True], ids=["waiting", "early"])
def test_a_slow_first_token(
    relay: Server, upstream: Aimock, tag: str, format: str, early: bool
) -> None:
    options: dict[str, Any] = {"heartbeat": "early"} if early else {}
    with start(relay, f"a little late #{tag}", format=format, **options) as stream:
        assert stream.next_comments(1) == ["ping"], "headers before the first token"
        decoded = read(stream, format)
    assert (decoded.text, decoded.outcome) == (upstream.story, "finished")


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
    relay: Server,
    upstream: Aimock,
    tag: str,
    message: str,
    status: int,
    kind: str,
    code: str | None,
    after: str | None,
) -> None:
    """With the upstream's status; in band if the headers were sent early; requested once."""
    answer = fetch(relay, start_path(f"{message} #{tag}"))
    assert answer.status == status
    assert answer.headers.get("retry-after") == after
    error: dict[str, Any] = json.loads(answer.body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["code"]) == (kind, code)
    assert upstream.asked_for(f"{message} #{tag}") == 1

    again = fetch(relay, f"/runs/{answer.headers['x-run-id']}")
    assert (again.status, json.loads(again.body)) == (status, {"error": error})

    with start(relay, f"{message} #{tag}-early", heartbeat="early") as stream:
        decoded = read(stream, "chunks")
    assert (decoded.text, decoded.outcome, decoded.error) == ("", "failed", error)


@pytest.mark.parametrize(
    ("message", "reason", "in_ui"),
    [
        ("story", "stop", "stop"),
        ("too long", "length", "length"),
        ("filtered", "content_filter", "content-filter"),
    ],
)
def test_every_finish(
    relay: Server, upstream: Aimock, tag: str, message: str, reason: str, in_ui: str
) -> None:
    with start(relay, f"{message} #{tag}") as stream:
        run = run_of(stream)
        decoded = read(stream, "chunks")
    assert (decoded.text, decoded.outcome, decoded.reason) == (upstream.story, "finished", reason)
    for format in ("text", "events", "ui"):
        decoded = read_run(relay, run, format)
        assert (decoded.text, decoded.outcome) == (upstream.story, "finished")
        assert decoded.reason == (in_ui if format == "ui" else reason)
    assert upstream.asked_for(f"{message} #{tag}") == 1


@pytest.mark.parametrize("format", ["chunks", "events", "ui"])
def test_reasoning(relay: Server, upstream: Aimock, tag: str, format: str) -> None:
    with start(relay, f"reasoning #{tag}", format=format) as stream:
        decoded = read(stream, format)
    assert decoded.reasoning == "Let me think about it."
    assert (decoded.text, decoded.outcome) == (upstream.story, "finished")


def test_tool_calls(relay: Server, tag: str) -> None:
    expected = [("weather", {"city": "Zürich", "unit": "°C"}), ("clock", {})]
    with start(relay, f"tools #{tag}", format="ui") as stream:
        run = run_of(stream)
        decoded = read(stream, "ui")
    parts = [json.loads(event.data or "") for event in decoded.events if event.data != "[DONE]"]
    assert [
        (part["toolName"], part["input"])
        for part in parts
        if part["type"] == "tool-input-available"
    ] == expected
    assert decoded.reason == "tool-calls"

    decoded = read_run(relay, run, "events")
    assert decoded.reason == "tool_calls"
    calls: dict[int, list[str]] = {}
    for event in decoded.events:
        if event.event == "tool_call":
            piece = json.loads(event.data or "")
            call = calls.setdefault(piece["index"], ["", ""])
            call[0] += piece.get("name") or ""
            call[1] += piece["arguments"]
    assert [(name, json.loads(arguments)) for name, arguments in calls.values()] == expected


def test_viewers_join_at_any_time(relay: Server, upstream: Aimock, tag: str) -> None:
    """A viewer that joins later gets it from the start, or the rest if it asks for that."""
    with start(relay, f"paced story #{tag}", format="text") as stream:
        run = run_of(stream)
        before = take(stream, 20)
        last = last_id(before)
        with (
            attach(relay, run, "text") as from_the_start,
            attach(relay, run, "text", last=last) as from_there,
        ):
            first = read(stream, "text", before)
            second = read(from_the_start, "text")
            third = read(from_there, "text", before)
    assert first.text == upstream.story * 4
    assert first.events == second.events == third.events
    assert upstream.asked_for(f"paced story #{tag}") == 1
