"""The built-in demo model: answers through the real client when there is no upstream."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Iterator
from typing import Any

import httpx2
import openai

__all__ = ["MODEL", "client"]

MODEL = "sseflask-demo"
#: Between two pieces, in seconds: the pace of a fast real model.
PAUSE = 0.02

_SAYS = (
    "I am the demo model built into sseflask, not a real language model. "
    "To talk to a real one, set OPENAI_API_KEY, or OPENAI_BASE_URL for any OpenAI-compatible "
    "server, and start the server again. You said: "
)


def client() -> openai.OpenAI:
    """An OpenAI client whose requests never leave this process."""
    return openai.OpenAI(
        api_key="demo",
        base_url="http://demo.invalid/v1",
        max_retries=0,
        http_client=httpx2.Client(transport=_DemoTransport(), trust_env=False),
    )


class _DemoTransport(httpx2.BaseTransport):
    """Answers ``POST /v1/chat/completions`` the way OpenAI's API does."""

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        if (request.method, request.url.path) != ("POST", "/v1/chat/completions"):
            error = {
                "message": "The demo model only knows POST /v1/chat/completions.",
                "type": "invalid_request_error",
                "param": None,
                "code": "not_found",
            }
            return httpx2.Response(404, json={"error": error})
        asked = json.loads(request.read())
        answer = _SAYS + _last_user_message(asked.get("messages", []))
        if asked.get("stream"):
            return httpx2.Response(
                200,
                headers={"Content-Type": "text/event-stream; charset=utf-8"},
                stream=_Chunks(answer),
            )
        message = {"role": "assistant", "content": answer}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return httpx2.Response(
            200, json={**_head("chat.completion"), "choices": [{**choice, "logprobs": None}]}
        )


class _Chunks(httpx2.SyncByteStream):
    def __init__(self, answer: str) -> None:
        self._pieces = re.findall(r"\S+\s*", answer)

    def __iter__(self) -> Iterator[bytes]:
        head = _head("chat.completion.chunk")
        yield _chunk(head, {"role": "assistant", "content": ""}, None)
        for piece in self._pieces:
            time.sleep(PAUSE)
            yield _chunk(head, {"content": piece}, None)
        yield _chunk(head, {}, "stop")
        yield b"data: [DONE]\n\n"


def _head(kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-demo-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": MODEL,
    }


def _chunk(head: dict[str, Any], delta: dict[str, str], finish_reason: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    text = json.dumps({**head, "choices": [choice]}, ensure_ascii=False, separators=(",", ":"))
    return f"data: {text}\n\n".encode()


def _last_user_message(messages: list[dict[str, Any]]) -> str:
    for message in reversed(messages):
        if message.get("role") == "user":
            content = message.get("content")
            if isinstance(content, str):
                return content
            if isinstance(content, list):
                texts = [part.get("text") for part in content if isinstance(part, dict)]
                return " ".join(text for text in texts if isinstance(text, str))
    return ""
