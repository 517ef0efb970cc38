"""Every outcome in every format, for both dialects."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sseflask.completions.completion_outcome import CompletionOutcome
from sseflask.completions.dialects import CHAT, RESPONSES
from sseflask.completions.formats import FORMATS, FormatName
from sseflask.completions.formats.views import response_error
from sseflask.completions.upstream_errors import broken_off, reported
from sseflask.errors import Failure
from sseflask.event import MessageEvent
from sseflask.store.run_api import Run
from sseflask.wire import Decoder, encode
from tests.scripted_upstream import event, frame

RUN = "0123456789abcdef0123456789abcdef"
SAID = {CHAT: frame("你好"), RESPONSES: event("response.output_text.delta", delta="你好")}
ERROR = {"message": "broken", "type": "server_error", "param": None, "code": "x", "more": [1]}
FAILED = CompletionOutcome.failed(reported(ERROR, ()))
COMPLETED = event("response.completed", response={})


def read(sent: bytes) -> list[MessageEvent]:
    return Decoder().feed(sent)


def shown(
    form: str, outcome: CompletionOutcome, *frames: bytes, dialect: str = CHAT
) -> list[bytes]:
    """What is sent of each frame, and of the outcome."""
    view = FORMATS[form].view(RUN, dialect)
    sent = [view.take(number, each) for number, each in enumerate(frames, 1)]
    return [*sent, view.end(len(frames) + 1, outcome)]


def ids_of(sent: bytes) -> list[str]:
    """The ids on events, empty where an event has none of its own."""
    events = sent.decode().split("\n\n")[:-1]
    return [each[4:].split("\n")[0] if each.startswith("id: ") else "" for each in events]


def last(form: str, outcome: CompletionOutcome, dialect: str = CHAT) -> tuple[str, Any]:
    """The terminal event's type and data, in a run of one frame."""
    event = read(shown(form, outcome, SAID[dialect], dialect=dialect)[-1])[-1]
    assert event.last_event_id == f"{RUN}.2"
    return event.event, event.data if event.data == "[DONE]" else json.loads(event.data)


OUTCOMES = [
    CompletionOutcome("finished", "stop"),
    CompletionOutcome("finished"),
    CompletionOutcome("finished", "length", usage={"total_tokens": 3}),
    CompletionOutcome("stopped"),
    CompletionOutcome("stopped", usage={"completion_tokens": 1, "partial": True}),
    CompletionOutcome("cancelled"),
    FAILED,
    CompletionOutcome("failed"),
    CompletionOutcome.failed(Failure("\ud83c half", code="y")),
    CompletionOutcome("finished", "stop", frame=COMPLETED),
    CompletionOutcome("failed", failure=broken_off(), frame=event("error", message="no")),
]


@pytest.mark.parametrize("dialect", [CHAT, RESPONSES])
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("outcome", OUTCOMES, ids=repr)
def test_only_the_last_event_of_each_has_the_id(
    form: str, dialect: str, outcome: CompletionOutcome
) -> None:
    silent = event("response.created") if dialect == RESPONSES else frame()
    frames = [silent, SAID[dialect], silent]
    *parts, end = shown(form, outcome, *frames, dialect=dialect)
    for number, sent in enumerate([*parts, end], 1):
        if sent:
            *others, terminal = ids_of(sent)
            assert terminal == f"{RUN}.{number}"
            assert not any(others)
    assert end
    # A client that decodes it sees the text as it was.
    assert "你好" in b"".join(parts).decode()


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("outcome", OUTCOMES, ids=repr)
def test_the_same_gives_the_same(form: str, outcome: CompletionOutcome) -> None:
    frames = [frame("a"), frame("b", finish="stop")]
    assert shown(form, outcome, *frames) == shown(form, outcome, *frames)
    stored = CompletionOutcome.of(Run(1, "", CHAT, 0, 1, outcome.ending().outcome))
    stored = replace(stored, usage=outcome.usage)
    assert shown(form, stored, *frames) == shown(form, outcome, *frames)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("outcome", OUTCOMES, ids=repr)
def test_a_run_that_ends_before_its_first_frame(form: str, outcome: CompletionOutcome) -> None:
    (sent,) = shown(form, outcome)
    assert read(sent)[-1].last_event_id == f"{RUN}.1"


def test_a_parameter_can_name_each_format() -> None:
    assert list(get_args(FormatName)) == list(FORMATS)


@pytest.mark.parametrize(
    ("name", "stateless", "resumable", "headers"),
    [
        ("chunks", True, True, {}),
        ("text", False, True, {}),
        ("events", False, True, {}),
        ("ui", False, False, {"x-vercel-ai-ui-message-stream": "v1"}),
    ],
)
def test_how_clients_of_a_format_resume(
    name: str, stateless: bool, resumable: bool, headers: dict[str, str]
) -> None:
    form = FORMATS[name]
    assert (form.stateless, form.resumable, form.headers) == (stateless, resumable, headers)


# chunks


@pytest.mark.parametrize("said", [frame("一"), b"data: {}\r\n\r\n", b"event: x\ndata:{}\r\r"])
def test_chunks_are_the_upstreams_bytes_with_ids(said: bytes) -> None:
    view = FORMATS["chunks"].view(RUN, CHAT)
    # It may begin anywhere.
    assert view.take(17, said) == f"id: {RUN}.17\n".encode() + said


STOPPED = {
    "message": "The run was stopped before it was complete.",
    "type": "run_stopped",
    "param": None,
    "code": "stopped",
}


def test_the_end_of_chunks() -> None:
    assert shown("chunks", CompletionOutcome("finished", "stop")) == [
        f"id: {RUN}.1\ndata: [DONE]\n\n".encode()
    ]
    assert last("chunks", FAILED) == ("message", {"error": ERROR})
    assert last("chunks", CompletionOutcome("stopped")) == ("message", {"error": STOPPED})
    kind, data = last("chunks", CompletionOutcome("cancelled"))
    assert (kind, data["error"]["type"], data["error"]["code"]) == (
        "message",
        "run_cancelled",
        "cancelled",
    )


def test_the_end_of_a_responses_chunks() -> None:
    finished = CompletionOutcome("finished", "stop", frame=COMPLETED)
    assert shown("chunks", finished, dialect=RESPONSES) == [f"id: {RUN}.1\n".encode() + COMPLETED]
    own = event("response.failed", response={"error": ERROR})
    failed = CompletionOutcome("failed", failure=FAILED.failure, frame=own)
    assert shown("chunks", failed, dialect=RESPONSES) == [f"id: {RUN}.1\n".encode() + own]
    assert last("chunks", FAILED, RESPONSES) == (
        "error",
        {"type": "error", "code": "x", "message": "broken", "param": None, "sequence_number": 1},
    )
    kind, data = last("chunks", CompletionOutcome("stopped"), RESPONSES)
    assert (kind, data["code"], data["message"]) == (
        "error",
        "stopped",
        STOPPED["message"],
    )
    (sent,) = read(encode(response_error(Failure("\ud83c", code="y"))))
    assert json.loads(sent.data)["code"] == "y"


@pytest.mark.parametrize(
    ("frames", "number"),
    [
        ([], 0),
        ([SAID[RESPONSES]], 1),
        ([event("response.created", sequence_number=0), event("x", sequence_number=1)], 2),
        ([SAID[RESPONSES], event("x", sequence_number=40)], 41),
    ],
)
def test_an_error_of_ours_goes_on_with_the_upstreams_numbers(
    frames: list[bytes], number: int
) -> None:
    for outcome in (FAILED, CompletionOutcome("stopped"), CompletionOutcome("cancelled")):
        (data,) = read(shown("chunks", outcome, *frames, dialect=RESPONSES)[-1])
        assert json.loads(data.data)["sequence_number"] == number


@pytest.mark.parametrize(
    ("name", "dialect", "event", "expected"),
    [
        ("chunks", CHAT, None, Failure("broken", code="x").body()),
        (
            "chunks",
            RESPONSES,
            "error",
            {
                "type": "error",
                "code": "x",
                "message": "broken",
                "param": None,
                "sequence_number": 0,
            },
        ),
        ("ui", RESPONSES, None, {"type": "error", "errorText": "broken"}),
        ("text", CHAT, "failure", Failure("broken", code="x").body()),
        ("events", CHAT, "failure", Failure("broken", code="x").body()),
    ],
)
def test_a_failure_of_the_connection(
    name: str, dialect: str, event: str | None, expected: dict[str, Any]
) -> None:
    data = FORMATS[name].failure_event(dialect)(Failure("broken", code="x"))
    assert (data.event, data.id) == (event, None)
    assert json.loads(data.data or "") == expected


# text, events and ui

#: The formats that are made of an answer's parts; `chunks` passes frames on.
OF_PARTS = [name for name, form in FORMATS.items() if not form.stateless]


def text_of_ui(events: list[MessageEvent]) -> list[str]:
    data = [json.loads(each.data) for each in events[:-1]]
    return [each["delta"] for each in data if each["type"] == "text-delta"]


#: Finds the pieces of the answer's text, in each of them.
SAYS: dict[str, Callable[[list[MessageEvent]], list[str]]] = {
    "text": lambda events: [each.data for each in events if each.event == "message"],
    "events": lambda events: [
        json.loads(each.data)["text"] for each in events if each.event == "text"
    ],
    "ui": text_of_ui,
}


def test_text() -> None:
    frames = [
        frame(""),
        frame("你"),
        frame("好\n"),
        frame(),
        frame("!", finish="length"),
        b'data: {"choices": [], "usage": {"total_tokens": 3}}\n\n',
    ]
    sent = b"".join(shown("text", CompletionOutcome("finished", "length", usage={"n": 1}), *frames))
    assert sent.decode() == (
        f"id: {RUN}.2\ndata: 你\n\n"
        f"id: {RUN}.3\ndata: 好\ndata: \n\n"
        f"id: {RUN}.5\ndata: !\n\n"
        f'id: {RUN}.7\nevent: done\ndata: {{"finish_reason":"length"}}\n\n'
    )


@pytest.mark.parametrize("form", ["text", "events"])
@pytest.mark.parametrize("dialect", [CHAT, RESPONSES])
@pytest.mark.parametrize(
    ("outcome", "event", "data"),
    [
        (CompletionOutcome("finished", "tool_calls"), "done", {"finish_reason": "tool_calls"}),
        (CompletionOutcome("finished"), "done", {"finish_reason": None}),
        (CompletionOutcome("finished", "stop", frame=COMPLETED), "done", {"finish_reason": "stop"}),
        (CompletionOutcome("stopped"), "done", {"finish_reason": "stopped"}),
        (CompletionOutcome("cancelled"), "done", {"finish_reason": "cancelled"}),
        (FAILED, "failure", {"error": ERROR}),
        (CompletionOutcome.failed(broken_off()), "failure", broken_off().body()),
    ],
    ids=repr,
)
def test_the_end_of_text_and_events(
    form: str, dialect: str, outcome: CompletionOutcome, event: str, data: Any
) -> None:
    assert last(form, outcome, dialect) == (event, data)


@pytest.mark.parametrize("form", ["text", "events"])
def test_half_a_letter_at_the_end(form: str) -> None:
    half = b'data: {"choices": [{"delta": {"content": "\\ud83c"}}]}\n\n'
    sent, end = shown(form, CompletionOutcome("finished", "stop"), half)
    assert sent == b""
    mark, done = read(end)
    assert "\ufffd" in mark.data
    assert (mark.last_event_id, done.last_event_id) == ("", f"{RUN}.2")


def test_events() -> None:
    call = {"index": 1, "id": "c", "function": {"name": "f", "arguments": "{}"}}
    delta = {"reasoning": "hm", "content": "a", "tool_calls": [call]}
    chunk = b"data: " + json.dumps({"choices": [{"delta": delta}]}).encode() + b"\n\n"
    outcome = CompletionOutcome("stopped", usage={"completion_tokens": 3, "partial": True})
    first, end = shown("events", outcome, chunk)
    assert [(each.event, json.loads(each.data)) for each in read(first)] == [
        ("reasoning", {"text": "hm"}),
        ("text", {"text": "a"}),
        ("tool_call", {"index": 1, "id": "c", "name": "f", "arguments": "{}"}),
    ]
    assert ids_of(first) == ["", "", f"{RUN}.1"]
    usage, done = read(end)
    assert (usage.event, json.loads(usage.data)) == ("usage", outcome.usage)
    assert (done.event, json.loads(done.data)) == ("done", {"finish_reason": "stopped"})
    assert ids_of(end) == ["", f"{RUN}.2"]


@pytest.mark.parametrize("form", OF_PARTS)
@pytest.mark.parametrize("data", [b"no json", b"[]", b'{"choices": [1]}', b"[" * 100_000])
def test_what_is_no_chunk_is_skipped(form: str, data: bytes) -> None:
    odd = b"data: " + data + b"\n\n"
    view = FORMATS[form].view(RUN, CHAT)
    view.take(1, frame("a"))
    assert view.take(2, odd) == b""
    assert b"b" in view.take(3, frame("b"))


@given(
    st.lists(st.lists(st.text(max_size=3), max_size=3), max_size=6),
    st.sampled_from(OF_PARTS),
)
def test_what_is_said_arrives(texts: list[list[str]], form: str) -> None:
    frames = [
        b"data: "
        + json.dumps({"choices": [{"delta": {"content": each}} for each in those]}).encode()
        + b"\n\n"
        for those in texts
    ]
    events = read(b"".join(shown(form, CompletionOutcome("finished", "stop"), *frames)))
    said = SAYS[form](events)
    expected = "".join("".join(those) for those in texts)
    if form == "text":
        # An event stream has one line end only.
        expected = expected.replace("\r", "\n")
        assert "".join(said).replace("\n", "") == expected.replace("\n", "")
    else:
        assert "".join(said) == expected
