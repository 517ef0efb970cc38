from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sseflask.completions.dialects import CHAT, RESPONSES
from sseflask.completions.frame_reader import PartReader
from sseflask.completions.parts import (
    Approval,
    Citation,
    File,
    HostedCall,
    Part,
    Reasoning,
    Text,
    ToolCall,
)
from tests.scripted_upstream import event


def chunk(finish: str | None = None, usage: Any = None, **delta: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return f"data: {json.dumps({'choices': [choice], 'usage': usage})}\n\n".encode()


def delta_event(kind: str, delta: Any, output_index: Any = 0) -> bytes:
    return event(f"response.{kind}.delta", delta=delta, output_index=output_index)


def said_of(part: Part) -> str:
    if isinstance(part, (HostedCall, Approval)):
        return part.name
    if isinstance(part, (File, Citation)):
        return part.url
    return part.arguments if isinstance(part, ToolCall) else part.text


def read(*frames: bytes, dialect: str = CHAT) -> list[Part]:
    reader = PartReader(dialect)
    return [part for frame in frames for part in reader.feed(frame)] + reader.finish()


def test_text_and_reasoning_in_both_spellings() -> None:
    assert read(
        chunk(role="assistant", content=""),
        chunk(reasoning_content="hm"),
        chunk(reasoning="so"),
        chunk(reasoning="", reasoning_content=None, content=None),
        chunk(content="yes", reasoning="ah"),
        chunk("stop", refusal="no"),
        b'data: {"choices": [], "usage": {"total_tokens": 7}}\n\n',
    ) == [Reasoning("hm"), Reasoning("so"), Reasoning("ah"), Text("yes"), Text("no")]


def test_tool_calls_in_pieces() -> None:
    first = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}
    more = {"index": 0, "function": {"arguments": '{"a":'}}
    other = {"index": 1, "id": "c2", "function": {"name": "g", "arguments": "{}"}}
    last = {"index": 0, "function": {"arguments": "1}"}}
    assert read(
        chunk(tool_calls=[first]),
        chunk(tool_calls=[more, other]),
        chunk("tool_calls", tool_calls=[last]),
    ) == [
        ToolCall(0, "c1", "f", '{"a":'),
        ToolCall(1, "c2", "g", "{}"),
        ToolCall(0, "", "", "1}"),
    ]


def calls(*deltas: Any) -> list[tuple[int, str, str, str]]:
    """The calls that a stream of these items of tool_calls makes, put together."""
    whole: dict[int, list[str]] = {}
    for part in read(*(chunk(tool_calls=[delta]) for delta in deltas)):
        assert isinstance(part, ToolCall)
        if part.index not in whole:
            whole[part.index] = [part.id, part.name, ""]
        else:
            assert (part.id, part.name) == ("", ""), "in the first piece alone"
        whole[part.index][2] += part.arguments
    return [(index, *call) for index, call in whole.items()]  # type: ignore[misc]


def piece(
    arguments: Any = None, name: str | None = None, id: str | None = None, index: Any = None
) -> dict[str, Any]:
    given = {"index": index, "id": id, "function": {"name": name, "arguments": arguments}}
    function = {key: value for key, value in given["function"].items() if value is not None}
    return {key: value for key, value in {**given, "function": function}.items() if value != None}  # noqa: E711


ONE_CALL = [(0, "fa", "f", '{"a":1}')]
TWO_CALLS = [(0, "fa", "f", '{"a":1}'), (1, "fb", "g", '{"b":2}')]


@pytest.mark.parametrize(
    ("deltas", "made"),
    [
        # Arguments that are no text.
        ([piece({"a": 1}, "f", "fa", 0)], ONE_CALL),
        ([piece([1], "f", "fa")], [(0, "fa", "f", "[1]")]),
        ([piece({}, "f", "fa")], [(0, "fa", "f", "{}")]),
        ([piece(None, "f", "fa")], [(0, "fa", "f", "")]),
        ([piece("", "f", "fa"), piece(None)], [(0, "fa", "f", "")]),
        ([piece({}, "f", "fa", 0), piece('{"a":', index=0), piece("1}", index=0)], ONE_CALL),
        ([piece({"a": 1}, "f", "fa"), piece({"b": 2})], [(0, "fa", "f", '{"a":1,"b":2}')]),
        ([{"id": "fa", "function": {"name": "f", "input": {"a": 1}}}], ONE_CALL),
        ([{"id": "fa", "name": "f", "arguments": {"a": 1}}], ONE_CALL),
        ([{"id": "fa", "type": "custom", "custom": {"name": "f", "input": 'say "'}},
          {"custom": {"input": "hi"}}], [(0, "fa", "f", '"say \\"hi"')]),
        # Names and ids: late, repeated, in pieces.
        ([piece('{"a":', "f", "fa", 0), piece("1}", "f", "fa", 0), piece("", "f", index=0)],
         ONE_CALL),
        ([piece('{"a":', "f", "fa"), piece("1}", "f", "fa")], ONE_CALL),
        ([piece('{"a":', "f", "fa", 0), piece("1}", None, "other", 0)], ONE_CALL),
        ([piece('{"a":', "f", "fa", 0), piece("1}", "f", "other", 0)], ONE_CALL),
        ([piece('{"a":', None, "fa", 0), piece("1}", "f", index=0)], ONE_CALL),
        ([piece('{"a":', "f", None, 0), piece("1}", None, "fa", 0)], [(0, "", "f", '{"a":1}')]),
        ([piece("", "get_", "fa", 0), piece("", "weather", index=0), piece("{}", index=0)],
         [(0, "fa", "get_weather", "{}")]),
        ([piece("", "get", "fa", 0), piece("{}", "get_weather", index=0)],
         [(0, "fa", "get_weather", "{}")]),
        # Which call a piece belongs to.
        ([piece('{"a":1}', "f", "fa"), piece('{"b":2}', "g", "fb")], TWO_CALLS),
        ([piece('{"a":', "f", "fa"), piece("1}"), piece("", "g", "fb"), piece('{"b":2}')],
         TWO_CALLS),
        ([piece('{"a":1}', "f", "fa", 0), piece('{"b":2}', "g", "fb", 0)], TWO_CALLS),
        ([piece("", "f", "fa", 0), piece('{"a":1}', index=0), piece("", "g", "fb", 0),
          piece('{"b":', index=0), piece("2}", index=0)], TWO_CALLS),
        ([piece("", "f", "fa", 0), piece("", "g", "fb", 1), piece('{"a":', index=0),
          piece('{"b":', index=1), piece("1}", index=0), piece("2}", index=1)], TWO_CALLS),
        ([piece('{"a":', "f", "fa"), piece('{"b":', "g", "fb"), piece("1}", id="fa"),
          piece("2}", id="fb")], TWO_CALLS),
        ([piece('{"a":1}', "f", "fa", "0"), piece('{"b":', "g", "fb", "1"), piece("2}", index="1")],
         TWO_CALLS),
        ([piece('{"a":1}', "f", index=0), piece('{"b":2}', "g", index=1)],
         [(0, "", "f", '{"a":1}'), (1, "", "g", '{"b":2}')]),
        ([piece('{"a":1}', "f"), piece('{"b":2}', "g")],
         [(0, "", "f", '{"a":1}'), (1, "", "g", '{"b":2}')]),
        ([piece('{"a":1}', "f"), piece('{"b":2}', "f")],
         [(0, "", "f", '{"a":1}'), (1, "", "f", '{"b":2}')]),
        ([piece({"a": 1}, "f"), piece({"b": 2}, "f")],
         [(0, "", "f", '{"a":1}'), (1, "", "f", '{"b":2}')]),
        ([piece('{"a":1}', "f", "x", 0), piece('{"b":2}', "g", "x", 1)],
         [(0, "x", "f", '{"a":1}'), (1, "x", "g", '{"b":2}')]),
    ],
)  # fmt: skip
def test_calls_in_all_spellings(deltas: list[Any], made: list[Any]) -> None:
    assert sorted(calls(*deltas)) == made


def test_a_call_of_older_servers() -> None:
    assert read(
        chunk(function_call={"name": "f", "arguments": ""}),
        chunk(function_call={"arguments": '{"a":'}),
        chunk(function_call={"arguments": "1}"}),
    ) == [ToolCall(0, "", "f", '{"a":'), ToolCall(0, "", "", "1}")]


def thinking(*texts: str) -> dict[str, Any]:
    return {"type": "thinking", "thinking": [{"type": "text", "text": text} for text in texts]}


@pytest.mark.parametrize(
    ("delta", "said"),
    [
        ({"content": [{"type": "text", "text": "It is "}]}, [Text("It is ")]),
        ({"content": [thinking("h", "m"), {"type": "text", "text": "x"}, "y"]},
         [Reasoning("hm"), Text("x"), Text("y")]),
        ({"content": [{"type": "text", "text": "x"}, thinking("h", "m")]},
         [Text("x"), Reasoning("hm")]),
        ({"content": {"type": "text", "text": "x"}}, [Text("x")]),
        ({"content": [{"type": "thinking", "thinking": "hm"}]}, [Reasoning("hm")]),
        ({"content": [{"type": "reasoning", "text": "hm"}]}, [Reasoning("hm")]),
        ({"content": [{"type": "reference", "reference_ids": [1]}]}, []),
        ({"content": 5}, [Text("5")]),
        ({"content": None}, []),
        ({"reasoning": {"content": "hm"}}, [Reasoning("hm")]),
        ({"reasoning": [{"type": "text", "text": "hm"}]}, [Reasoning("hm")]),
        ({"reasoning_text": "hm"}, [Reasoning("hm")]),
        ({"thinking": "hm"}, [Reasoning("hm")]),
        ({"reasoning_details": [{"type": "reasoning.text", "text": "h", "format": "x"},
                                {"type": "reasoning.summary", "summary": "m"},
                                {"type": "reasoning.encrypted", "data": "no"}]}, [Reasoning("hm")]),
        ({"reasoning": "hm", "reasoning_details": [{"type": "reasoning.text", "text": "hm"}]},
         [Reasoning("hm")]),
        ({"reasoning_content": "", "reasoning": "hm"}, [Reasoning("hm")]),
        ({"audio": {"id": "a", "transcript": "x"}}, [Text("x")]),
        ({"audio": {"id": "a", "data": "AAAA", "expires_at": 5}}, []),
        ({"refusal": "no"}, [Text("no")]),
        ({"refusal": False}, []),
    ],
    ids=lambda each: json.dumps(each, default=str)[:50],
)  # fmt: skip
def test_what_a_delta_says(delta: dict[str, Any], said: list[Part]) -> None:
    assert read(chunk(**delta)) == said


def choices(*given: dict[str, Any]) -> bytes:
    return f"data: {json.dumps({'choices': list(given)})}\n\n".encode()


def test_messages_in_the_place_of_deltas() -> None:
    whole = {"index": 0, "message": {"role": "assistant", "content": "x"}}
    assert read(choices(whole)) == [Text("x")]
    assert read(choices({**whole, "delta": {}})) == [Text("x")]
    assert read(choices({"index": 0, "delta": {"content": "x"}}), choices(whole)) == [Text("x")]
    assert read(choices({**whole, "delta": {"content": "y"}})) == [Text("y")]
    assert read(choices({"text": "x"}), choices({"index": "0", "text": "y"})) == [
        Text("x"),
        Text("y"),
    ]


def test_a_response() -> None:
    call = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": ""}
    assert read(
        event("response.created", response={}),
        delta_event("reasoning_summary_text", "hm"),
        delta_event("reasoning_text", "so"),
        event("response.output_item.added", item={"type": "message"}, output_index=1),
        delta_event("output_text", "yes"),
        delta_event("output_text", ""),
        delta_event("refusal", "no"),
        event("response.output_text.done", text="yes"),
        event("response.output_item.added", item=call, output_index=2),
        delta_event("function_call_arguments", "{}", 2),
        event("response.output_item.added", item={**call, "call_id": None}, output_index=3),
        b'event: response.output_text.delta\ndata: {"delta": "untyped"}\n\n',
        b'data: {"type": "response.output_text.delta", "delta": "unnamed"}\n\n',
        event("response.audio.delta", delta="x"),
        dialect=RESPONSES,
    ) == [
        Reasoning("hm"),
        Reasoning("so"),
        Text("yes"),
        Text("no"),
        ToolCall(2, "c1", "f", ""),
        ToolCall(2, "", "", "{}"),
        ToolCall(3, "fc_1", "f", ""),
        Text("untyped"),
        Text("unnamed"),
    ]


FUNCTION = {"type": "function_call", "id": "fc", "call_id": "c", "name": "f"}
MADE = [ToolCall(0, "c", "f", '{"a":1}')]


def item_event(kind: str, item: Any, output_index: Any = 0) -> bytes:
    return event(f"response.output_item.{kind}", item=item, output_index=output_index)


def completed(*output: Any) -> bytes:
    return event("response.completed", response={"output": output})


def joined(parts: list[Part]) -> list[Part]:
    """The parts with the pieces of each call put together."""
    whole: list[Part] = []
    places: dict[int, int] = {}
    for part in parts:
        if isinstance(part, ToolCall) and part.index in places:
            before = whole[places[part.index]]
            assert isinstance(before, ToolCall)
            whole[places[part.index]] = replace(before, arguments=before.arguments + part.arguments)
            continue
        if isinstance(part, ToolCall):
            places[part.index] = len(whole)
        whole.append(part)
    return whole


def respond(*frames: bytes) -> list[Part]:
    *before, last = frames
    reader = PartReader(RESPONSES)
    return joined([part for frame in before for part in reader.feed(frame)] + reader.finish(last))


ARGUMENTS = event(
    "response.function_call_arguments.done", item_id="fc", output_index=0, arguments='{"a":1}'
)
WHOLE = {**FUNCTION, "arguments": '{"a":1}'}


@pytest.mark.parametrize(
    "frames",
    [
        [item_event("added", FUNCTION), ARGUMENTS, completed()],
        [item_event("added", FUNCTION), ARGUMENTS, item_event("done", WHOLE), completed(WHOLE)],
        [item_event("added", FUNCTION), delta_event("function_call_arguments", '{"a":'),
         ARGUMENTS, item_event("done", WHOLE), completed(WHOLE)],
        [item_event("added", WHOLE), item_event("done", WHOLE), completed()],
        [item_event("added", WHOLE), completed()],
        [item_event("added", WHOLE), delta_event("function_call_arguments", '{"a":1}'),
         completed()],
        [item_event("done", WHOLE), completed()],
        [item_event("done", {**WHOLE, "arguments": {"a": 1}}), completed(WHOLE)],
        [ARGUMENTS, item_event("done", WHOLE), completed()],
        [completed(WHOLE)],
        [item_event("done", WHOLE), completed({"type": "reasoning", "id": "r"}, WHOLE)],
        [item_event("done", WHOLE), completed({"type": "reasoning"}, {**WHOLE, "id": "other"})],
        [item_event("added", FUNCTION, None), event(
            "response.function_call_arguments.done", item_id="fc", arguments='{"a":1}'),
         completed(WHOLE)],
    ],
)  # fmt: skip
def test_arguments_count_as_they_are_at_last(frames: list[bytes]) -> None:
    assert respond(*frames) == MADE


def test_two_calls_of_a_response() -> None:
    other = {**FUNCTION, "id": "fd", "call_id": "d", "name": "g", "arguments": {"b": 2}}
    assert respond(
        item_event("added", FUNCTION),
        item_event("added", {**other, "arguments": ""}, 1),
        delta_event("function_call_arguments", '{"a":1}'),
        completed(WHOLE, other),
    ) == [*MADE, ToolCall(1, "d", "g", '{"b":2}')]


def content(text: str, kind: str = "output_text") -> dict[str, Any]:
    return {"type": kind, ("refusal" if kind == "refusal" else "text"): text}


def said_item(text: str, kind: str = "output_text") -> dict[str, Any]:
    return {"type": "message", "id": "m", "role": "assistant", "content": [content(text, kind)]}


SAID = event("response.output_text.done", text="yes", output_index=0, content_index=0, item_id="m")
PART = event("response.content_part.done", part=content("yes"), output_index=0, content_index=0)


@pytest.mark.parametrize(
    "frames",
    [
        [SAID, completed()],
        [PART, completed()],
        [item_event("done", said_item("yes")), completed()],
        [completed(said_item("yes"))],
        [SAID, PART, item_event("done", said_item("yes")), completed(said_item("yes"))],
        [delta_event("output_text", "yes"), SAID, PART, completed(said_item("yes"))],
        [delta_event("output_text", "ye"), completed(said_item("yes"))],
        [delta_event("output_text", "yes"), completed({"type": "reasoning"}, said_item("yes"))],
        [delta_event("output_text", "yes"), completed(said_item("Yes, indeed"))],
    ],
)
def test_text_counts_as_it_is_at_last(frames: list[bytes]) -> None:
    parts = respond(*frames)
    assert "".join(part.text for part in parts if isinstance(part, Text)) == "yes"
    assert all(isinstance(part, Text) for part in parts)


def test_what_else_comes_whole() -> None:
    thought = {"type": "reasoning", "summary": [content("a", "summary_text")],
               "content": [content("b", "reasoning_text")]}  # fmt: skip
    again = event("response.reasoning_summary_text.done", text="a", summary_index=0, output_index=0)
    assert respond(completed(thought)) == [Reasoning("a"), Reasoning("b")]
    assert respond(again, completed(thought)) == [Reasoning("a"), Reasoning("b")]
    assert respond(completed(said_item("no", "refusal"))) == [Text("no")]
    two = {"type": "message", "content": [content("a"), content("b")]}
    assert respond(completed(two, said_item("c"))) == [Text("a"), Text("b"), Text("c")]
    # A letter that is cut between two pieces, and whole at last.
    halves = [
        f'data: {{"type": "response.output_text.delta", "delta": "{half}"}}\n\n'.encode()
        for half in ("a\\ud83d", "\\ude00")
    ]
    assert respond(*halves, completed(said_item("a😀"))) == [Text("a"), Text("😀")]


def test_calls_of_other_kinds() -> None:
    custom = {"type": "custom_tool_call", "id": "ct", "call_id": "c", "name": "f", "input": 'a"b'}
    whole = [ToolCall(0, "c", "f", '"a\\"b"')]
    assert respond(completed(custom)) == whole
    assert (
        respond(
            item_event("added", {**custom, "input": ""}),
            delta_event("custom_tool_call_input", 'a"'),
            event("response.custom_tool_call_input.done", input='a"b', output_index=0),
            completed(custom),
        )
        == whole
    )
    shell = {"type": "local_shell_call", "id": "s", "call_id": "c", "action": {"command": ["ls"]}}
    assert respond(item_event("done", shell), completed(shell)) == [
        ToolCall(0, "c", "local_shell", '{"action":{"command":["ls"]}}')
    ]
    search = {
        "type": "web_search_call",
        "id": "ws",
        "status": "completed",
        "action": {"query": "q"},
    }
    server = {"type": "mcp_call", "id": "mc", "name": "f", "arguments": '{"a":1}', "output": "o"}
    assert respond(item_event("done", search), completed(search, server)) == [
        HostedCall("ws", "web_search", {"query": "q"}, {"action": {"query": "q"}}),
        HostedCall("mc", "mcp.f", {"a": 1}, {"output": "o"}),
    ]


PNG = "data:image/png;base64,iVBO"
PICTURE = {"type": "image_url", "image_url": {"url": PNG}, "index": 0}


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (PICTURE, File(PNG, "image/png")),
        ({"image_url": PNG}, File(PNG, "image/png")),
        ({"type": "image", "url": "https://h/a.webp?x"}, File("https://h/a.webp?x", "image/webp")),
        ({"url": "http://h/a"}, File("http://h/a", "image/png")),
        ({"b64_json": "AQID"}, File("data:image/png;base64,AQID", "image/png")),
        (
            {"source": {"media_type": "image/jpeg", "data": "AQ"}},
            File("data:image/jpeg;base64,AQ", "image/jpeg"),
        ),
        ({"url": "javascript:alert(1)"}, None),
        ({"url": "file:///etc/passwd"}, None),
        ({"url": 5}, None),
        (None, None),
    ],
)
def test_pictures(given: Any, found: File | None) -> None:
    """Each once, also if it comes again, or in the message at the end."""
    again = f"data: {json.dumps({'choices': [{'index': 0, 'message': {'images': [given]}}]})}\n\n"
    assert read(chunk(content="a", images=[given]), chunk(images=[given]), again.encode()) == [
        Text("a"),
        *([] if found is None else [found]),
    ]


def test_pictures_among_the_parts_of_a_content() -> None:
    text = {"type": "text", "text": "a"}
    assert read(chunk(content=[text, PICTURE, text])) == [
        Text("a"),
        File(PNG, "image/png"),
        Text("a"),
    ]


CITED = {"type": "url_citation", "url": "https://h/1", "title": "One", "start_index": 0}
CITED_FILE = {"type": "file_citation", "file_id": "f1", "filename": "a.pdf"}


def test_sources() -> None:
    inner = {"type": "url_citation", "url_citation": {"url": "https://h/1", "title": "One"}}
    listed = {
        "choices": [{"index": 0, "delta": {}}],
        "citations": ["https://h/1", "https://h/2", 5],
    }
    assert read(
        chunk(content="a", annotations=[inner]),
        chunk(annotations=[inner, {"url": "javascript:x"}, None]),
        f"data: {json.dumps(listed)}\n\n".encode(),
    ) == [Text("a"), Citation("https://h/1", "One", ""), Citation("https://h/2", "", "")]
    part = {"type": "output_text", "text": "hi", "annotations": [CITED, CITED_FILE]}
    added = "response.output_text.annotation.added"
    assert respond(
        delta_event("output_text", "hi"),
        event(added, annotation=CITED, output_index=0),
        completed({"type": "message", "content": [part]}),
    ) == [
        Text("hi"),
        Citation("https://h/1", "One", ""),
        Citation("", "a.pdf", "a.pdf"),
    ]


@pytest.mark.parametrize(("arguments", "value"), [('{"a": 1}', {"a": 1}), ("", {}), (None, {})])
def test_a_call_that_waits_for_an_approval(arguments: Any, value: Any) -> None:
    item = {
        "type": "mcp_approval_request",
        "id": "mcpr_1",
        "name": "roll",
        "server_label": "dice",
        "arguments": arguments,
    }
    asked = [Approval("mcpr_1", "roll", value, "dice")]
    assert respond(item_event("added", item), item_event("done", item), completed(item)) == asked
    assert respond(completed(item)) == asked


HALVES = [
    (["a\ud83d", "\ude00b"], "a😀b"),
    (["\ud83d", "", "\ude00"], "😀"),
    (["\ud83d", "\ude00\ud83d", "\ude01"], "😀😁"),
    (["😀", "你"], "😀你"),
    (["a\ud83d", "b"], "a\ufffdb"),
    (["a", "\ude00b"], "a\ufffdb"),
    (["a\ud83db"], "a\ufffdb"),
    (["\ud83d", "\ud83d", "\ude00"], "\ufffd😀"),
    (["a\ud83d"], "a\ufffd"),
]
SPELLINGS: list[tuple[str, Any]] = [
    (CHAT, lambda half: chunk(content=half)),
    (CHAT, lambda half: chunk(reasoning=half)),
    (CHAT, lambda half: chunk(tool_calls=[{"index": 1, "function": {"arguments": half}}])),
]


@pytest.mark.parametrize(("halves", "text"), HALVES, ids=ascii)
@pytest.mark.parametrize(("dialect", "spell"), SPELLINGS, ids=["text", "reasoning", "arguments"])
def test_letters_cut_between_pieces(dialect: str, spell: Any, halves: list[str], text: str) -> None:
    parts = read(*map(spell, halves), dialect=dialect)
    said = [said_of(part) for part in parts]
    assert "".join(said) == text
    assert all(said), "no part is empty"


@pytest.mark.parametrize(("halves", "text"), HALVES, ids=ascii)
def test_letters_cut_in_a_response(halves: list[str], text: str) -> None:
    frames = [
        f"event: response.output_text.delta\ndata: {json.dumps({'delta': half})}\n\n".encode()
        for half in halves
    ]
    parts = read(*frames, dialect=RESPONSES)
    assert "".join(part.text for part in parts if isinstance(part, Text)) == text


def test_a_name_that_no_text_can_carry() -> None:
    call = {"index": 0, "id": "\ud83c", "function": {"name": "\udf0a", "arguments": "{}"}}
    assert read(chunk(tool_calls=[call])) == [ToolCall(0, "\ufffd", "\ufffd", "{}")]


def test_other_choices_are_left_out_and_no_event_type_is() -> None:
    other = b'data: {"choices": [{"index": 1, "delta": {"content": "no"}}]}\n\n'
    named = b"event: other\n" + chunk(content="y")
    assert read(other, b"event: keepalive\ndata: {}\n\n", named, chunk(content="x")) == [
        Text("y"),
        Text("x"),
    ]


@pytest.mark.parametrize(
    "frame",
    [b"data: no JSON\n\n", b"data: 5\n\n", b"data: [" + b"[" * 100_000 + b"\n\n", b"\n", b"",
     b'data: {"choices": 5}\n\n', b'data: {"choices": [5, {"delta": 5}]}\n\n',
     chunk(content=True), chunk(content=[None, {}]), chunk(reasoning={}), chunk(tool_calls=5),
     chunk(tool_calls=[5, {"index": "x"}, {"function": 5}, {"id": 5}, {"function": {"name": 5}}]),
     event("response.output_item.added", item=5), event("response.output_text.delta", delta=5)],
    ids=lambda frame: repr(frame[:40]),
)  # fmt: skip
@pytest.mark.parametrize("dialect", [CHAT, RESPONSES])
def test_what_can_not_be_read_is_left_out(frame: bytes, dialect: str) -> None:
    good = chunk(content="x") if dialect == CHAT else delta_event("output_text", "x")
    assert read(frame, good, frame, dialect=dialect) == [Text("x")]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2)
    | st.dictionaries(
        st.sampled_from(
            ["choices", "delta", "content", "reasoning", "tool_calls", "function", "arguments",
             "index", "id", "name", "type", "item", "output_index", "usage", "response"]
        ),
        inner | st.sampled_from(["response.output_text.delta", "function_call"]),
        max_size=4,
    ),
    max_leaves=20,
)  # fmt: skip


@given(st.lists(json_values, max_size=3), st.sampled_from([CHAT, RESPONSES]))
def test_any_json_can_be_read(values: list[Any], dialect: str) -> None:
    for part in read(*(b"data: %b\n\n" % json.dumps(v).encode() for v in values), dialect=dialect):
        said_of(part).encode()
