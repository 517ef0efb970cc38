"""The built-in demo model: answers if no upstream is configured."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Iterator
from typing import Any

import httpx2

from sseflask.completions.json_values import dict_or_empty, dicts
from sseflask.completions.upstream_errors import refused

MODEL = "sseflask-demo"
#: Seconds between two pieces: the pace of a fast real model.
PAUSE = 0.02
#: Characters of a message that are repeated, and bytes of a prompt: anybody may ask, and the answer
#: is stored.
_MAX_REPEATED, MAX_PROMPT = 200, 262_144

_ANSWER = (
    "I am the demo model built into sseflask, not a real language model. "
    "To talk to a real one, set OPENAI_API_KEY, or OPENAI_BASE_URL for any OpenAI-compatible "
    "server, and start the server again. You said: "
)
_ROUTES = (
    "The demo model only knows POST /v1/chat/completions, POST /v1/responses and GET /v1/models."
)


class DemoClient:
    """A client of the demo model, whose requests never leave this process. Thread-safe.

    Without the SDK, which takes longer to import than all the rest of the service.
    """

    def send(self, path: str, body: bytes | None, seconds: float | None = None) -> httpx2.Response:  # noqa: ARG002  # the head is there at once
        """See `OpenAIClient.send`."""
        method = "GET" if body is None else "POST"
        request = httpx2.Request(method, f"http://demo.invalid/v1{path}", content=body)
        response = respond(request)
        response.request = request
        if response.is_error:
            raise refused(response, response.read(), ())
        return response

    def close(self) -> None:
        """Nothing is open."""


def respond(request: httpx2.Request) -> httpx2.Response:
    """Answers both APIs for completions, and lists one model, the way OpenAI does."""
    route = (request.method, request.url.path)
    if route == ("GET", "/v1/models"):
        model = {"id": MODEL, "object": "model", "created": 0, "owned_by": "sseflask"}
        return httpx2.Response(200, json={"object": "list", "data": [model]})
    if route not in _COMPLETIONS:
        return _refusal(404, "not_found", _ROUTES)
    try:
        parameters = json.loads(request.read())
    except (ValueError, RecursionError):
        parameters = None
    if not isinstance(parameters, dict):
        return _refusal(400, "invalid_json", "The body is not a JSON object.")
    completion = _COMPLETIONS[route](parameters)
    if parameters.get("stream"):
        headers = {"Content-Type": "text/event-stream; charset=utf-8"}
        return httpx2.Response(200, headers=headers, content=completion.frames())
    # In ASCII, so that half a surrogate pair may be in what is repeated.
    body = json.dumps(completion.document()).encode()
    return httpx2.Response(200, headers={"Content-Type": "application/json"}, content=body)


def _refusal(status: int, code: str, message: str) -> httpx2.Response:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return httpx2.Response(status, json={"error": error})


class _Completion:
    """The text of a completion, and its tokens, which are words."""

    def __init__(self, messages: Any) -> None:
        self._text = _ANSWER + _beginning(_last_user_message(messages))
        self._prompt_tokens = len(_words(json.dumps(messages)))
        self._completion_tokens = len(_words(self._text))

    def _pieces(self) -> Iterator[str]:
        for word in _words(self._text):
            time.sleep(PAUSE)
            yield word


class _Chat(_Completion):
    def __init__(self, parameters: dict[str, Any]) -> None:
        super().__init__(parameters.get("messages"))
        self._include_usage = bool(
            dict_or_empty(parameters.get("stream_options")).get("include_usage")
        )
        self._head = {
            "id": f"chatcmpl-demo-{uuid.uuid4().hex}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": MODEL,
        }
        self._usage = {
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": self._completion_tokens,
            "total_tokens": self._prompt_tokens + self._completion_tokens,
        }

    def document(self) -> dict[str, Any]:
        message = {"role": "assistant", "content": self._text}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        head = {**self._head, "object": "chat.completion"}
        return {**head, "choices": [choice], "usage": self._usage}

    def frames(self) -> Iterator[bytes]:
        yield self._chunk({"role": "assistant", "content": ""})
        for piece in self._pieces():
            yield self._chunk({"content": piece})
        yield self._chunk({}, "stop")
        if self._include_usage:
            yield self._frame([], self._usage)
        yield b"data: [DONE]\n\n"

    def _chunk(self, delta: dict[str, str], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return self._frame([choice], None)

    def _frame(self, choices: list[dict[str, Any]], usage: dict[str, int] | None) -> bytes:
        chunk = {**self._head, "choices": choices}
        # As OpenAI does: once asked for, the usage is in every chunk, null but for the last.
        return _frame({**chunk, "usage": usage} if self._include_usage else chunk)


class _Response(_Completion):
    def __init__(self, parameters: dict[str, Any]) -> None:
        given = parameters.get("input")
        super().__init__([{"role": "user", "content": given}] if isinstance(given, str) else given)
        instructions = parameters.get("instructions")
        self._item = f"msg_demo_{uuid.uuid4().hex}"
        self._head: dict[str, Any] = {
            "id": f"resp_demo_{uuid.uuid4().hex}",
            "object": "response",
            "created_at": int(time.time()),
            "model": MODEL,
            "error": None,
            "incomplete_details": None,
            "instructions": _beginning(instructions) if isinstance(instructions, str) else None,
            "metadata": {},
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
        }

    def document(self) -> dict[str, Any]:
        output, usage = [self._message("completed")], self._usage()
        return {**self._head, "status": "completed", "output": output, "usage": usage}

    def frames(self) -> Iterator[bytes]:
        for number, event in enumerate(self._events()):
            frame = _frame({**event, "sequence_number": number})
            yield b"event: %b\n%b" % (event["type"].encode(), frame)

    def _events(self) -> Iterator[dict[str, Any]]:
        begun = {**self._head, "status": "in_progress", "output": [], "usage": None}
        yield {"type": "response.created", "response": begun}
        yield {"type": "response.in_progress", "response": begun}
        item = {"output_index": 0}
        added = {**self._message("in_progress"), "content": []}
        yield {"type": "response.output_item.added", **item, "item": added}
        part = {**item, "item_id": self._item, "content_index": 0}
        yield {"type": "response.content_part.added", **part, "part": _output_text("")}
        for piece in self._pieces():
            yield {"type": "response.output_text.delta", **part, "delta": piece, "logprobs": []}
        text = self._text
        yield {"type": "response.output_text.done", **part, "text": text, "logprobs": []}
        yield {"type": "response.content_part.done", **part, "part": _output_text(text)}
        done = self._message("completed")
        yield {"type": "response.output_item.done", **item, "item": done}
        yield {"type": "response.completed", "response": self.document()}

    def _message(self, status: str) -> dict[str, Any]:
        return {
            "id": self._item,
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": [_output_text(self._text)],
        }

    def _usage(self) -> dict[str, Any]:
        return {
            "input_tokens": self._prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": self._completion_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self._prompt_tokens + self._completion_tokens,
        }


def _output_text(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


_COMPLETIONS: dict[tuple[str, str], type[_Chat] | type[_Response]] = {
    ("POST", "/v1/chat/completions"): _Chat,
    ("POST", "/v1/responses"): _Response,
}


def _beginning(text: str) -> str:
    return text if len(text) <= _MAX_REPEATED else f"{text[:_MAX_REPEATED]}..."


def _words(text: str) -> list[str]:
    return re.findall(r"\S+\s*", text)


def _frame(value: dict[str, Any]) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return f"data: {text}\n\n".encode(errors="replace")


def _last_user_message(messages: Any) -> str:
    for message in reversed(dicts(messages)):
        if message.get("role") == "user":
            content = message.get("content")
            if isinstance(content, str):
                return content
            if isinstance(content, list):
                texts = [part.get("text") for part in dicts(content)]
                return " ".join(text for text in texts if isinstance(text, str))
    return ""
