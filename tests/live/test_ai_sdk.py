"""The AI SDK reads a completion as a UI message stream."""

from __future__ import annotations

import json
from typing import Any

from tests.live.conftest import node
from tests.live.servers import Server
from tests.live.services import Upstream


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


def test_text(relay: Server, upstream: Upstream, access_token: str) -> None:
    answer = read_with_the_ai_sdk(relay, "story", access_token)
    assert answer["message"]["role"] == "assistant"
    assert said(answer, "text") == upstream.story
    assert said(answer, "reasoning") == ""


def test_reasoning(relay: Server, upstream: Upstream, access_token: str) -> None:
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
