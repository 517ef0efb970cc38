from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sseflask.completions.completion_outcome import CompletionOutcome
from sseflask.completions.dialects import CHAT, RESPONSES
from sseflask.completions.frame_splitter import FrameSplitter, fields, message
from sseflask.completions.stream_parser import ChatParser, End, ResponseParser, StreamParser
from sseflask.errors import Failure
from sseflask.runs.outcome import ReportedFailure
from tests.scripted_upstream import DONE, event, frame

ONE, LAST = frame("你 one"), frame(finish="stop")
DELTA = event("response.output_text.delta", delta="hi")
COMPLETED = event("response.completed", response={"usage": {"total_tokens": 3}})


def parser_of(dialect: str) -> StreamParser:
    return ResponseParser(()) if dialect == RESPONSES else ChatParser((), 1)


def read(dialect: str, *pieces: bytes) -> tuple[list[bytes], End]:
    """The frames of a stream that arrives in these pieces, and its end."""
    splitter, parser = FrameSplitter(4 * 2**20), parser_of(dialect)
    frames = []
    for piece in pieces:
        kept, end = parser.feed(splitter.feed(piece))
        frames += kept
        if end is not None:
            return frames, end
    return frames, parser.finish(splitter.rest)


def code_of(end: End) -> Any:
    assert isinstance(end, Failure)
    return end.code


def chunk(**more: Any) -> bytes:
    return b"data: " + json.dumps(more).encode() + b"\n\n"


def choices(*those: tuple[int, Any]) -> bytes:
    return chunk(choices=[{"index": index, "finish_reason": reason} for index, reason in those])


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([ONE, LAST], "stop"),
        ([ONE], None),
        ([choices((0, "length"))], "length"),
        ([choices((1, "length")), choices((0, "stop"))], "stop"),
        ([choices((0, "stop")), choices((1, "length"))], "stop"),
        ([choices((0, "stop"), (1, "length"))], "stop"),
        ([choices((1, "length"))], "length"),
        ([choices((0, "tool_calls")), chunk(choices=[], usage={})], "tool_calls"),
        ([choices((0, 5)), choices((0, {})), choices((0, ""))], None),
    ],
)
def test_the_reason_why_a_chat_ends(frames: list[bytes], reason: str | None) -> None:
    assert read(CHAT, *frames, DONE) == (frames, CompletionOutcome("finished", reason))
    kept, end = read(CHAT, *frames)
    assert kept == frames
    if reason is None:
        assert code_of(end) == "upstream_truncated"
    else:
        assert end == CompletionOutcome("finished", reason)


def test_what_follows_the_end_is_not_read() -> None:
    assert read(CHAT, LAST + DONE + ONE + b"data: x\n\n") == (
        [LAST],
        CompletionOutcome("finished", "stop"),
    )
    assert read(RESPONSES, DELTA + COMPLETED + DELTA + DONE)[0] == [DELTA]


@pytest.mark.parametrize("dialect", [CHAT, RESPONSES])
@pytest.mark.parametrize(
    "data",
    [b"no json", b"[]", b"5", b'"text"', b"{", b'{"a": 1} x',
     b"[" * 5000, b'{"a":' * 5000, b'{"a": 1}\ndata: {"a": 1}', b"{\n1: 2}", b'{"a": "\t"}'],
    ids=lambda data: repr(data[:20]),
)  # fmt: skip
def test_garbage(dialect: str, data: bytes) -> None:
    first = ONE if dialect == CHAT else DELTA
    for end in (b"\n", b"\r\n", b"\r"):
        garbage = b"data: " + data.replace(b"\n", end) + end + end
        frames, failure = read(dialect, first, garbage)
        assert frames == [first]
        assert code_of(failure) == "upstream_invalid"
        frames, failure = read(dialect, first, b"event: response.x" + end + garbage)
        assert code_of(failure) == "upstream_invalid"


@pytest.mark.parametrize(
    "value",
    [{}, {"choices": None}, {"choices": 5}, {"choices": [5, None]}, {"choices": {}},
     {"choices": [{"finish_reason": [1]}]}, {"usage": {}}, {"error": None}, {"error": ""},
     {"choices": [{"delta": {"content": "\ud83c"}}]}, {"x": "NaN"}],
    ids=repr,
)  # fmt: skip
def test_any_object_is_relayed(value: dict[str, Any]) -> None:
    odd = chunk(**value)
    assert read(CHAT, odd, LAST, DONE) == ([odd, LAST], CompletionOutcome("finished", "stop"))
    assert read(RESPONSES, odd, COMPLETED)[0] == [odd]


@pytest.mark.parametrize("dialect", [CHAT, RESPONSES])
def test_empty_events_are_dropped(dialect: str) -> None:
    first, last = (ONE, DONE) if dialect == CHAT else (DELTA, COMPLETED)
    empty = [b": comment\n\n", b"event: ping\n\n", b"data:\n\n", b"data\n\n", b"id: 4\n\n"]
    assert read(dialect, *empty, first, *empty, last)[0] == [first]


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (chunk(error={"message": "a", "code": "c"}), {"message": "a", "code": "c"}),
        (chunk(error="plain"), {"message": "plain", "code": None}),
        (b"event: error\n" + chunk(message="b", x=1), {"message": "b", "x": 1}),
        (b"event: error\n" + chunk(error={"message": "c"}), {"message": "c"}),
        (b"event: error\ndata: what\n\n", {"message": "what"}),
        (chunk(error={"message": "\ud83c"}), {"message": "\ud83c"}),
        (b'data: {"error":\ndata: {"message": "d"}}\n\n', {"message": "d"}),
    ],
)
def test_an_error_in_a_chat(sent: bytes, error: dict[str, Any]) -> None:
    frames, end = read(CHAT, ONE + sent + LAST)
    assert frames == [ONE]
    assert isinstance(end, ReportedFailure)
    assert {**end.error, **error} == end.error
    assert (end.status, end.type) == (502, "server_error")


@pytest.mark.parametrize(
    ("details", "reason"),
    [
        ({"reason": "max_output_tokens"}, "length"),
        ({"reason": "max_messages"}, "length"),
        ({"reason": "content_filter"}, "content_filter"),
        ({"reason": "steered"}, "steered"),
        ({"reason": 5}, None),
        ({}, None),
        (None, None),
        ("x", None),
    ],
)
def test_an_incomplete_response(details: Any, reason: str | None) -> None:
    last = event("response.incomplete", response={"incomplete_details": details})
    assert read(RESPONSES, DELTA, last) == (
        [DELTA],
        CompletionOutcome("finished", reason, frame=last),
    )


INNER = {"message": "no", "code": "rate_limit_exceeded"}
LIMIT = {**INNER, "type": "rate_limit_error"}


@pytest.mark.parametrize(
    ("last", "error"),
    [
        (event("response.failed", response={"error": INNER}), LIMIT),
        (event("response.failed", response={"error": None}), {"code": None}),
        (event("response.failed", response=[]), {"code": None}),
        (event("error", **INNER, param="p", sequence_number=3), {**LIMIT, "param": "p"}),
        (event("error", error={**INNER, "type": "invalid_request_error"}, sequence_number=3),
         {**INNER, "type": "invalid_request_error"}),
        (b'data: {"type": "error", "message": "no"}\n\n', {"message": "no"}),
        (b'event: error\ndata: {"message": "no"}\n\n', {"message": "no"}),
    ],
)  # fmt: skip
def test_a_response_that_failed(last: bytes, error: dict[str, Any]) -> None:
    frames, end = read(RESPONSES, DELTA + last + COMPLETED)
    assert frames == [DELTA]
    assert isinstance(end, CompletionOutcome)
    assert (end.kind, end.frame, end.reason) == ("failed", last, None)
    assert isinstance(end.failure, ReportedFailure)
    expected = {"type": "server_error", "param": None, **error}
    assert {**end.failure.error, **expected} == end.failure.error
    assert "sequence_number" not in end.failure.error


@pytest.mark.parametrize("state", ["cancelled", "canceled", "expired"])
@pytest.mark.parametrize("named", [True, False])
def test_a_response_that_the_upstream_gave_up(state: str, named: bool) -> None:
    kind = f"response.{state}" if named else "response.whatever"
    last = event(kind, response={"status": state, "output": []})
    frames, end = read(RESPONSES, DELTA + last + DONE)
    assert frames == [DELTA]
    assert isinstance(end, CompletionOutcome)
    assert (end.kind, end.frame) == ("failed", last)
    assert end.failure is not None
    assert end.failure.code == state
    assert end.failure.message == f"The upstream ended its response: it is {state}."


def test_a_response_that_was_given_up_for_a_reason() -> None:
    last = event("response.cancelled", response={"error": INNER})
    _, end = read(RESPONSES, DELTA + last)
    assert isinstance(end, CompletionOutcome)
    assert end.failure is not None
    assert end.failure.code == INNER["code"]


@pytest.mark.parametrize(
    ("state", "kind", "reason"),
    [
        ("completed", "finished", "stop"),
        ("incomplete", "finished", None),
        ("failed", "failed", None),
        (None, "finished", "stop"),
    ],
)
def test_an_end_under_an_unknown_name(state: str | None, kind: str, reason: str | None) -> None:
    begun = [event(f"response.{name}", response={"status": state}) for name in BEGINNINGS]
    last = event("response.done", response={"status": state})
    frames, end = read(RESPONSES, *begun, event("response.x", response={"status": "y"}), last)
    assert len(frames) == len(begun) + 1
    assert isinstance(end, CompletionOutcome)
    assert (end.kind, end.reason, end.frame) == (kind, reason, last)


BEGINNINGS = ("created", "queued", "in_progress")
ERROR = {"message": "Provider returned error", "code": 429}


@pytest.mark.parametrize(
    "told",
    [
        {
            "choices": [
                {"index": 0, "delta": {"content": ""}, "finish_reason": "error", "error": ERROR}
            ]
        },
        {"choices": [{"index": 0, "delta": {"role": "assistant"}, "error": ERROR}]},
        {"choices": [{"index": 0, "delta": {}}], "x_groq": {"id": "req_1", "error": ERROR}},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "error"}], "error": ERROR},
    ],
)
def test_an_error_in_a_chunk(told: dict[str, Any]) -> None:
    frames, end = read(CHAT, ONE, chunk(**told), DONE)
    assert frames == [ONE]
    assert isinstance(end, ReportedFailure)
    assert (end.status, end.message, end.code) == (429, ERROR["message"], ERROR["code"])


def test_what_a_chunk_says_beside_its_error_is_kept() -> None:
    said = {"index": 0, "delta": {"content": "so far"}, "finish_reason": "error"}
    frames, end = read(CHAT, chunk(choices=[{**said, "error": ERROR}], x_groq={"error": "x"}), DONE)
    assert isinstance(end, ReportedFailure)
    assert [message(each)[1] for each in frames] == [{"choices": [said]}]


def test_the_reason_error_alone() -> None:
    _, end = read(CHAT, ONE, choices((0, "ERROR")), DONE)
    assert isinstance(end, ReportedFailure)
    assert (end.status, end.message) == (502, "The upstream ended its answer with an error.")


def test_groq_without_an_error() -> None:
    usual = chunk(choices=[], x_groq={"id": "req_1"})
    assert read(CHAT, usual, LAST, DONE) == ([usual, LAST], CompletionOutcome("finished", "stop"))


def test_the_error_of_one_choice_ends_no_other() -> None:
    broken = chunk(choices=[{"index": 1, "delta": {}, "finish_reason": "error", "error": ERROR}])
    more = chunk(choices=[{"index": 0, "delta": {"content": "x"}, "finish_reason": "stop"}])
    parser = ChatParser((), 2)
    assert parser.feed([broken, more]) == ([more], None)
    assert parser.idle_limit is not None
    for end in (parser.finish(b""), parser.feed([DONE])[1]):
        assert isinstance(end, ReportedFailure)
        assert end.status == 429


def test_an_error_of_a_server_before_the_api() -> None:
    frames, end = read(RESPONSES, DELTA + chunk(error=INNER))
    assert frames == [DELTA]
    assert isinstance(end, ReportedFailure)
    assert end.code == INNER["code"]


@pytest.mark.parametrize("sent", [[], [DELTA], [DELTA, DONE], [DELTA, COMPLETED[:-1]], [LAST]])
def test_a_response_needs_an_end_of_its_own(sent: list[bytes]) -> None:
    assert code_of(read(RESPONSES, *sent)[1]) == "upstream_truncated"


def test_a_response_without_types_in_its_data() -> None:
    last = b'event: response.completed\ndata: {"response": {}}\n\n'
    assert read(RESPONSES, DELTA, last) == (
        [DELTA],
        CompletionOutcome("finished", "stop", frame=last),
    )


CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}


@pytest.mark.parametrize(
    ("frames", "output", "reason"),
    [
        ([], [], "stop"),
        ([event("response.output_item.added", item=CALL)], [], "tool_calls"),
        ([event("response.output_item.done", item=CALL), DELTA], [], "tool_calls"),
        ([event("response.function_call_arguments.done", arguments="{}")], [], "tool_calls"),
        ([], [{"type": "message"}, CALL], "tool_calls"),
        ([], [{"type": "custom_tool_call"}], "tool_calls"),
        ([event("response.output_item.done", item={"type": "web_search_call"})],
         [{"type": "mcp_call"}], "stop"),
        ([event("response.web_search_call.searching")], 5, "stop"),
    ],
)  # fmt: skip
def test_a_response_with_calls_ends_for_them(frames: list[bytes], output: Any, reason: str) -> None:
    last = event("response.completed", response={"output": output})
    assert read(RESPONSES, *frames, last)[1] == CompletionOutcome("finished", reason, frame=last)


def test_keepalive_events_of_a_response_are_relayed() -> None:
    keepalive = event("keepalive", sequence_number=2)
    sent = [keepalive, DELTA, keepalive]
    assert read(RESPONSES, *sent, COMPLETED)[0] == sent


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_the_last_event_loses_the_upstreams_id_too(end: bytes) -> None:
    kept = COMPLETED.replace(b"\n", end)
    sent = b": x" + end + b"id: 4" + end + b"retry: 3" + end + kept
    assert read(RESPONSES, sent)[1] == CompletionOutcome("finished", "stop", frame=kept)


@pytest.mark.parametrize("dialect", [CHAT, RESPONSES])
def test_a_frame_of_a_mebibyte(dialect: str) -> None:
    text = "你\n" * 2**18
    if dialect == CHAT:
        sent = [frame(text), LAST, DONE]
    else:
        sent = [event("response.output_text.delta", delta=text), DELTA, COMPLETED]
    assert len(sent[0]) > 2**20
    stream = b"".join(sent)
    pieces = [stream[start : start + 9999] for start in range(0, len(stream), 9999)]
    assert read(dialect, *pieces)[0] == sent[:-1]


ENDS = st.sampled_from([b"\n", b"\r", b"\r\n"])
LINES = st.sampled_from(
    [b": comment", b":", b"id: 7", b"id", b"retry: 10", b"identity: 1", b"event: x", b"x"]
)
VALUES = st.one_of(
    st.builds(lambda text: chunk(choices=[{"delta": {"content": text}}]), st.text(max_size=4)),
    st.builds(lambda text: frame(text), st.text(max_size=4)),
    st.builds(lambda text: event("response.output_text.delta", delta=text), st.text(max_size=4)),
    st.sampled_from([LAST, DONE, COMPLETED, b"data: x\n\n", b"data:\n\n", event("keepalive")]),
)


@st.composite
def streams(draw: st.DrawFn, endings: st.SearchStrategy[bytes]) -> bytes:
    stream = b""
    for _ in range(draw(st.integers(0, 5))):
        ending = draw(endings)
        for line in draw(st.lists(LINES, max_size=2)):
            stream += line + ending
        whole = draw(VALUES).removesuffix(b"\n\n").replace(b"\n", ending)
        stream += whole + draw(endings)
        for line in draw(st.lists(LINES, max_size=2)):
            stream += line + ending
        stream += draw(endings) * draw(st.integers(1, 2))
    return stream


def told(end: End) -> Any:
    return (type(end), end.code) if isinstance(end, Failure) else end


def cut(stream: bytes, data: st.DataObject) -> list[bytes]:
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8).map(sorted))
    return [stream[start:end] for start, end in itertools.pairwise([0, *cuts, len(stream)])]


DIALECTS = st.sampled_from([CHAT, RESPONSES])


@given(dialect=DIALECTS, stream=streams(st.just(b"\n")), ending=ENDS, data=st.data())
def test_any_cut_gives_the_same_frames(
    dialect: str, stream: bytes, ending: bytes, data: st.DataObject
) -> None:
    stream = stream.replace(b"\n", ending)
    frames, end = read(dialect, stream)
    cut_frames, cut_end = read(dialect, *cut(stream, data))
    assert cut_frames == frames
    assert told(cut_end) == told(end)


@given(dialect=DIALECTS, stream=streams(ENDS), data=st.data())
def test_any_cut_of_mixed_line_ends_says_the_same(
    dialect: str, stream: bytes, data: st.DataObject
) -> None:
    frames, end = read(dialect, stream)
    cut_frames, cut_end = read(dialect, *cut(stream, data))
    # After a CR at a cut an LF may follow: the CR may be left out at the frame's end.
    assert [fields(each) for each in cut_frames] == [fields(each) for each in frames]
    assert isinstance(cut_end, type(end))
    for each in [*frames, *cut_frames]:
        assert fields(each)[1]
        lines = each.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        assert lines[-2:] == [b"", b""], "it ends with a blank line"
        names = [line.partition(b":")[0] for line in lines[:-2]]
        assert not {b"", b"id", b"retry"} & set(names)
