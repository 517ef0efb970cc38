"""The AI SDK reads a completion as a UI message stream."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sseflask.completions.formats.ui_messages import openai_messages
from tests.live.kit.aimock import Aimock
from tests.live.kit.servers import Server
from tests.live.kit.tools import node
from tests.unit.completions.formats import test_ui_messages as messages


def read_with_the_ai_sdk(relay: Server, message: str, access_token: str) -> dict[str, Any]:
    done = node("ai.mjs", f"{relay.url}/sse/openai_out?format=ui", message, access_token)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def said(answer: dict[str, Any], kind: str) -> str:
    """What the message's parts of one type say."""
    assert answer["failure"] is None
    assert {part.get("state") for part in answer["message"]["parts"] if part["type"] == kind} <= {
        "done"
    }
    return "".join(part["text"] for part in answer["message"]["parts"] if part["type"] == kind)


def test_text(relay: Server, upstream: Aimock, access_token: str) -> None:
    answer = read_with_the_ai_sdk(relay, "story", access_token)
    assert answer["message"]["role"] == "assistant"
    assert said(answer, "text") == upstream.story
    assert said(answer, "reasoning") == ""


def test_reasoning(relay: Server, upstream: Aimock, access_token: str) -> None:
    answer = read_with_the_ai_sdk(relay, "reasoning", access_token)
    assert said(answer, "reasoning") == "Let me think about it."
    assert said(answer, "text") == upstream.story


def test_an_error_before_the_first_byte(relay: Server, access_token: str) -> None:
    answer = read_with_the_ai_sdk(relay, "limit", access_token)
    assert answer["message"] is None
    assert "Rate limit reached" in answer["failure"]


def test_an_error_inside_the_stream(relay: Server, access_token: str) -> None:
    answer = read_with_the_ai_sdk(relay, "truncated", access_token)
    assert answer["failure"]
    assert answer["message"]["parts"], "what came before is there"


def test_messages_are_sent_as_the_ai_sdk_sends_them() -> None:
    text, tool, file = messages.text, messages.tool, messages.file
    step = {"type": "step-start"}
    hello = {"role": "user", "parts": [text("Hello")]}

    def asked(*parts: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"role": "user", "parts": list(parts)}]

    def answered(*parts: dict[str, Any]) -> list[dict[str, Any]]:
        return [hello, {"role": "assistant", "parts": list(parts)}, hello]

    conversations = [
        [{"role": "system", "parts": [text("Be brief.")]}, hello],
        answered(step, text("a"), text("b"), {"type": "data-x", "data": 1}),
        answered(step, text("a"), tool("output-available", output={"x": "é"}), step, text("b")),
        answered(
            tool("output-available", output="x"), tool("output-error", id="c2", errorText="no")
        ),
        answered(text("a"), tool("input-available"), tool("input-streaming", id="c2")),
        answered(tool("output-error", errorText="no", input=None, rawInput='{"q')),
        answered({**tool("output-available", output=[1]), "type": "dynamic-tool", "toolName": "y"}),
        answered(
            {**tool("output-denied"), "approval": {"id": "a", "approved": False, "reason": "r"}}
        ),
        asked(text("see"), file(messages.PNG, "image/png")),
        asked(text("see"), file("https://server/a.png", "image/png")),
        asked(file(messages.PDF, "application/pdf", "a.pdf"), text("see")),
        asked(text("hear"), file("data:audio/wav;base64,AQID", "audio/wav")),
    ]
    theirs = json.loads(node("convert.mjs", json.dumps(conversations)).stdout)
    ours = [
        [sent for message in conversation for sent in openai_messages(message, "")]
        for conversation in conversations
    ]
    assert ours == theirs


@pytest.mark.parametrize(("text", "stop"), [("paced story", ["stop"]), ("truncated", [])])
def test_errors_of_ours_in_a_response(
    relay: Server, access_token: str, text: str, stop: list[str]
) -> None:
    reported = json.loads(node("responses.mjs", relay.url, text, access_token, *stop).stdout)
    assert reported["text"] or not stop, "what came before is there"
    expected = "was stopped" if stop else "before the answer was complete"
    assert len(reported["errors"]) == 1
    assert expected in json.dumps(reported["errors"])
    assert reported["reasons"] == ["error"]
