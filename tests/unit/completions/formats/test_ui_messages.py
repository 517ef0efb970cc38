from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sseflask.completions.formats.ui_messages import UnusableMessage, openai_messages

PNG = "data:image/png;base64,iVBORw0KGgo="
PDF = f"data:application/pdf;base64,{base64.b64encode(b'%PDF-1.7').decode()}"


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said, "state": "done"}


def tool(state: str, name: str = "look", id: str = "c1", **more: Any) -> dict[str, Any]:
    return {"type": f"tool-{name}", "toolCallId": id, "state": state, "input": {"q": 1}, **more}


def file(url: str, kind: str | None = None, name: str | None = None) -> dict[str, Any]:
    return {"type": "file", "url": url, "mediaType": kind, "filename": name}


def sent(role: str, *parts: Any, **more: Any) -> list[dict[str, Any]]:
    message = {"id": "m", "role": role, "metadata": {"a": 1}, "parts": list(parts), **more}
    return openai_messages(message, "messages[1]")


def called(arguments: str = '{"q":1}', name: str = "look", id: str = "c1") -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def answered(content: str, id: str = "c1") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": content}


def test_only_text_is_content() -> None:
    thought = {"type": "reasoning", "text": "T "}
    assert sent("assistant", thought, text("Four.")) == [{"role": "assistant", "content": "Four."}]
    assert sent(
        "assistant",
        {"type": "step-start"},
        {"type": "source-url", "sourceId": "s", "url": "http://a", "title": "text", "text": "no"},
        {"type": "source-document", "sourceId": "s", "mediaType": "text/plain", "title": "no"},
        {"type": "data-weather", "id": "d", "data": {"text": "no"}, "text": "no"},
        {"type": "reasoning-file", "url": PNG, "mediaType": "image/png"},
        text("a"),
        text("b"),
    ) == [{"role": "assistant", "content": "ab"}]
    assert sent("system", text("Be"), text(" brief.")) == [
        {"role": "system", "content": "Be brief."}
    ]
    assert sent("user", text("a"), text("b")) == [{"role": "user", "content": "ab"}]


@pytest.mark.parametrize("role", ["system", "user", "assistant"])
@pytest.mark.parametrize(
    "parts",
    [[], [{"type": "step-start"}], [text("")], [{"type": "reasoning", "text": "T"}],
     [{"type": "step-start"}, {"type": "data-a", "data": 1}, {"type": "step-start"}]],
    ids=str,
)  # fmt: skip
def test_a_message_that_says_nothing_is_left_out(role: str, parts: list[Any]) -> None:
    assert sent(role, *parts) == []


def test_calls_and_their_results_step_by_step() -> None:
    assert sent(
        "assistant",
        {"type": "step-start"},
        {"type": "reasoning", "text": "T"},
        text("Looking."),
        tool("output-available", output={"degrees": 21}),
        tool("output-error", id="c2", errorText="it rains"),
        {"type": "step-start"},
        {**tool("output-available", id="c3", output="o"), "type": "dynamic-tool", "toolName": "x"},
        {"type": "step-start"},
        text("Done."),
    ) == [
        {"role": "assistant", "content": "Looking.", "tool_calls": [called(), called(id="c2")]},
        answered('{"degrees":21}'),
        answered("it rains", "c2"),
        {"role": "assistant", "content": None, "tool_calls": [called(name="x", id="c3")]},
        answered("o", "c3"),
        {"role": "assistant", "content": "Done."},
    ]  # fmt: skip


@pytest.mark.parametrize(
    "part",
    [tool("input-streaming"), tool("input-available"),
     tool("approval-requested", approval={"id": "a"}),
     tool("approval-responded", approval={"id": "a", "approved": True}),
     tool("output-available", output=1, preliminary=True),
     {"type": "tool-invocation", "toolInvocation": {"state": "call", "toolCallId": "c1",
                                                    "toolName": "look", "args": {"q": 1}}}],
    ids=lambda part: str(part.get("state")),
)  # fmt: skip
def test_a_call_that_has_no_result_is_left_out(part: dict[str, Any]) -> None:
    assert sent("assistant", part) == []
    assert sent("assistant", text("a"), part) == [{"role": "assistant", "content": "a"}]


@pytest.mark.parametrize(
    ("part", "arguments", "result"),
    [(tool("output-available", output=None), '{"q":1}', "null"),
     (tool("output-available", output=["é", 1]), '{"q":1}', '["é",1]'),
     (tool("output-available", output="x", input=None), "{}", "x"),
     (tool("output-available", output="x", input='{"q": 2}'), '{"q": 2}', "x"),
     (tool("output-error", errorText="no JSON", input=None, rawInput='{"q'), '"{\\"q"', "no JSON"),
     (tool("output-available", output="x", providerExecuted=True), '{"q":1}', "x"),
     (tool("output-denied", approval={"id": "a", "approved": False, "reason": "private"}),
      '{"q":1}', "private"),
     (tool("approval-responded", approval={"id": "a", "approved": False}),
      '{"q":1}', "Tool call execution denied."),
     ({"type": "tool-invocation", "toolInvocation": {"state": "result", "toolCallId": "c1",
       "toolName": "look", "args": {"q": 1}, "result": 5}}, '{"q":1}', "5")],
)  # fmt: skip
def test_what_is_said_of_a_call(part: dict[str, Any], arguments: str, result: str) -> None:
    assert sent("assistant", part) == [
        {"role": "assistant", "content": None, "tool_calls": [called(arguments)]},
        answered(result),
    ]


FILES = [
    (file(PNG, "image/png"), {"type": "image_url", "image_url": {"url": PNG}}),
    (file(PNG), {"type": "image_url", "image_url": {"url": PNG}}),
    (file("https://a/b.JPG?x"), {"type": "image_url", "image_url": {"url": "https://a/b.JPG?x"}}),
    (file("data:audio/mpeg;base64,AQI", "audio/mpeg"),
     {"type": "input_audio", "input_audio": {"data": "AQI=", "format": "mp3"}}),
    (file(PDF, "application/pdf", "a.pdf"),
     {"type": "file", "file": {"filename": "a.pdf", "file_data": PDF}}),
    (file(PDF), {"type": "file", "file": {"filename": "document.pdf", "file_data": PDF}}),
    (file("data:,a%20%C3%A9", "text/plain"), {"type": "text", "text": "a é"}),
    ({"type": "file", "mediaType": "image/png", "providerReference": {"openai": "file-1"}},
     {"type": "file", "file": {"file_id": "file-1"}}),
]  # fmt: skip


@pytest.mark.parametrize(("part", "content"), FILES, ids=lambda each: str(each)[:60])
def test_files(part: dict[str, Any], content: dict[str, Any]) -> None:
    if content["type"] == "text":
        assert sent("user", part) == [{"role": "user", "content": content["text"]}]
    else:
        asked = {"type": "text", "text": "What is it?"}
        assert sent("user", text("What is it?"), part) == [
            {"role": "user", "content": [asked, content]}
        ]
        assert sent("user", part, text("What is it?")) == [
            {"role": "user", "content": [content, asked]}
        ]


def test_version_4() -> None:
    image = {"url": PNG, "contentType": "image/png", "name": "a.png"}
    assert sent("user", text("see"), content="see", experimental_attachments=[image]) == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "see"},
                {"type": "image_url", "image_url": {"url": PNG}},
            ],
        }
    ]
    assert sent("assistant", content="a") == [{"role": "assistant", "content": "a"}]
    assert sent("assistant", text("b"), content="a") == [{"role": "assistant", "content": "b"}]


@pytest.mark.parametrize(
    ("role", "part", "path"),
    [("user", 5, ""), ("user", {"text": "a"}, ""), ("user", {"type": "video", "url": PNG}, ""),
     ("user", {"type": "text"}, ".text"), ("user", file("blob:http://a/b", "image/png"), ""),
     ("user", file("https://a/b.pdf"), ""), ("user", file("https://a/b"), ""),
     ("user", {"type": "file"}, ""), ("user", file("data:image", "application/pdf"), ""),
     ("user", file("data:audio/ogg,a"), ""), ("user", file("data:application/pdf;base64,*"), ""),
     ("assistant", {**tool("output-available", output=1), "toolCallId": None}, ".toolCallId"),
     ("assistant", {**tool("output-available", output=1), "type": "dynamic-tool"}, ".toolName"),
     ("assistant", {"type": "tool-invocation"}, ".toolInvocation")],
)  # fmt: skip
def test_a_part_that_can_not_be_sent_is_named(role: str, part: Any, path: str) -> None:
    with pytest.raises(UnusableMessage) as raised:
        sent(role, text("a"), part)
    assert raised.value.path == f"messages[1].parts[1]{path}"


def test_a_role_that_can_not_be_sent_is_named() -> None:
    with pytest.raises(UnusableMessage) as raised:
        sent("data", text("a"))
    assert raised.value.path == "messages[1].role"


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(
        st.sampled_from(["type", "text", "url", "mediaType", "state", "toolCallId", "toolName",
                         "input", "output", "approval", "approved", "reason", "parts"]),
        inner | st.sampled_from(["text", "file", "tool-a", "dynamic-tool", "steering-message",
                                 "output-available", "output-error", "data:,x", "image/png"]),
        max_size=6),
    max_leaves=12,
)  # fmt: skip


@given(st.sampled_from(["system", "user", "assistant"]), st.lists(anything, max_size=3))
def test_any_parts_are_sent_or_refused(role: str, parts: list[Any]) -> None:
    messages: list[dict[str, Any]] = []
    refused = None
    try:
        messages = sent(role, *parts)
    except UnusableMessage as error:
        refused = error
    assert refused is None or refused.path.startswith("messages[1].parts[")
    json.dumps(messages)
    assert all(message["content"] or message.get("tool_calls") or message["role"] == "tool"
                   for message in messages)  # fmt: skip
