"""The built-in demo model: answers in an upstream's stead where there is none."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Iterator
from typing import Any

import httpx2

from sseflask.completions.upstream_errors import refused

__all__ = ["MAX_PROMPT", "MODEL", "DemoClient", "DemoTransport"]

MODEL = "sseflask-demo"
#: Between two pieces, in seconds: the pace of a fast real model.
PAUSE = 0.02
#: Characters of a message that are repeated: anybody may ask, and what is said is stored.
_REPEATED = 200
#: Bytes of a prompt: the same.
MAX_PROMPT = 262_144

_SAYS = (
    "I am the demo model built into sseflask, not a real language model. "
    "To talk to a real one, set OPENAI_API_KEY, or OPENAI_BASE_URL for any OpenAI-compatible "
    "server, and start the server again. You said: "
)


class DemoClient:
    """A client of the demo model, whose requests never leave this process. Thread-safe.

    Without the SDK, which takes longer to import than all the rest of the service.
    """

    def __init__(self) -> None:
        self._client = httpx2.Client(
            base_url="http://demo.invalid/v1", transport=DemoTransport(), trust_env=False
        )

    def ask(
        self, path: str, content: bytes | None, seconds: float | None = None
    ) -> httpx2.Response:
        """Give the response to a request; to be closed. Without ``content`` it is a GET.

        Its head is there at once: ``seconds`` are for an upstream.

        Raises:
            Failure: the demo model refused the request.
        """
        request = self._client.build_request(
            "GET" if content is None else "POST", path, content=content, timeout=seconds
        )
        response = self._client.send(request, stream=True)
        if response.is_error:
            raise refused(response, response.read(), ())
        return response

    def close(self) -> None:
        """Nothing is open."""
        self._client.close()


class DemoTransport(httpx2.BaseTransport):
    """Answers both APIs for completions, and lists one model, the way OpenAI does."""

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        called = (request.method, request.url.path)
        if called == ("GET", "/v1/models"):
            model = {"id": MODEL, "object": "model", "created": 0, "owned_by": "sseflask"}
            return httpx2.Response(200, json={"object": "list", "data": [model]})
        if called not in _MAKERS:
            return _refused(404, "not_found", _KNOWS)
        try:
            asked = json.loads(request.read())
        except (ValueError, RecursionError):
            asked = None
        if not isinstance(asked, dict):
            return _refused(400, "invalid_json", "The body is not a JSON object.")
        answer = _MAKERS[called](asked)
        if asked.get("stream"):
            return httpx2.Response(
                200,
                headers={"Content-Type": "text/event-stream; charset=utf-8"},
                stream=_Frames(answer.frames()),
            )
        # In ASCII, so that what is repeated of a message may be half a letter.
        body = json.dumps(answer.whole()).encode()
        return httpx2.Response(200, headers={"Content-Type": "application/json"}, content=body)


def _refused(status: int, code: str, message: str) -> httpx2.Response:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return httpx2.Response(status, json={"error": error})


class _Frames(httpx2.SyncByteStream):
    def __init__(self, frames: Iterator[bytes]) -> None:
        self._frames = frames

    def __iter__(self) -> Iterator[bytes]:
        return self._frames


class _Answer:
    """What is said, in pieces that take their time, and what they are counted as."""

    def __init__(self, messages: Any) -> None:
        self.text = _SAYS + _beginning(_last_user_message(messages))
        self.asked = len(_pieces(json.dumps(messages)))
        self.answered = len(_pieces(self.text))

    def pieces(self) -> Iterator[str]:
        for piece in _pieces(self.text):
            time.sleep(PAUSE)
            yield piece


def _beginning(text: str) -> str:
    return text if len(text) <= _REPEATED else f"{text[:_REPEATED]}..."


def _pieces(text: str) -> list[str]:
    return re.findall(r"\S+\s*", text)


class _Chat:
    """An answer of Chat Completions."""

    def __init__(self, asked: dict[str, Any]) -> None:
        self._answer = _Answer(asked.get("messages"))
        options = asked.get("stream_options")
        self._with_usage = isinstance(options, dict) and bool(options.get("include_usage"))

    def whole(self) -> dict[str, Any]:
        message = {"role": "assistant", "content": self._answer.text}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        return {**self._head("chat.completion"), "choices": [choice], "usage": self._usage()}

    def frames(self) -> Iterator[bytes]:
        head = self._head("chat.completion.chunk")
        yield self._chunk(head, {"role": "assistant", "content": ""}, None)
        for piece in self._answer.pieces():
            yield self._chunk(head, {"content": piece}, None)
        yield self._chunk(head, {}, "stop")
        if self._with_usage:
            yield _data({**head, "choices": [], "usage": self._usage()})
        yield b"data: [DONE]\n\n"

    def _chunk(
        self, head: dict[str, Any], delta: dict[str, str], finish_reason: str | None
    ) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        # As OpenAI does: once asked for, the usage is in every chunk, empty but for the last.
        usage = {"usage": None} if self._with_usage else {}
        return _data({**head, "choices": [choice], **usage})

    def _usage(self) -> dict[str, int]:
        asked, answered = self._answer.asked, self._answer.answered
        return {
            "prompt_tokens": asked,
            "completion_tokens": answered,
            "total_tokens": asked + answered,
        }

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-demo-{uuid.uuid4().hex}",
            "object": kind,
            "created": int(time.time()),
            "model": MODEL,
        }


class _Response:
    """An answer of the Responses API."""

    def __init__(self, asked: dict[str, Any]) -> None:
        given = asked.get("input")
        messages = [{"role": "user", "content": given}] if isinstance(given, str) else given
        self._answer = _Answer(messages)
        instructions = asked.get("instructions")
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

    def whole(self) -> dict[str, Any]:
        return self._state("completed", [self._message("completed")], self._usage())

    def frames(self) -> Iterator[bytes]:
        events = self._events()
        for number, event in enumerate(events):
            yield b"event: %b\n%b" % (
                str(event["type"]).encode(),
                _data({**event, "sequence_number": number}),
            )

    def _events(self) -> Iterator[dict[str, Any]]:
        begun = self._state("in_progress", [], None)
        yield {"type": "response.created", "response": begun}
        yield {"type": "response.in_progress", "response": begun}
        item = {"output_index": 0}
        added = {**self._message("in_progress"), "content": []}
        yield {"type": "response.output_item.added", **item, "item": added}
        part = {**item, "item_id": self._item, "content_index": 0}
        yield {"type": "response.content_part.added", **part, "part": _output_text("")}
        for piece in self._answer.pieces():
            yield {"type": "response.output_text.delta", **part, "delta": piece, "logprobs": []}
        text = self._answer.text
        yield {"type": "response.output_text.done", **part, "text": text, "logprobs": []}
        yield {"type": "response.content_part.done", **part, "part": _output_text(text)}
        done = self._message("completed")
        yield {"type": "response.output_item.done", **item, "item": done}
        yield {"type": "response.completed", "response": self.whole()}

    def _state(
        self, status: str, output: list[dict[str, Any]], usage: dict[str, Any] | None
    ) -> dict[str, Any]:
        return {**self._head, "status": status, "output": output, "usage": usage}

    def _message(self, status: str) -> dict[str, Any]:
        return {
            "id": self._item,
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": [_output_text(self._answer.text)],
        }

    def _usage(self) -> dict[str, Any]:
        asked, answered = self._answer.asked, self._answer.answered
        return {
            "input_tokens": asked,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": answered,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": asked + answered,
        }


def _output_text(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


_MAKERS: dict[tuple[str, str], type[_Chat] | type[_Response]] = {
    ("POST", "/v1/chat/completions"): _Chat,
    ("POST", "/v1/responses"): _Response,
}
_KNOWS = (
    "The demo model only knows POST /v1/chat/completions, POST /v1/responses and GET /v1/models."
)


def _data(value: dict[str, Any]) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return f"data: {text}\n\n".encode(errors="replace")


def _last_user_message(messages: Any) -> str:
    for message in reversed(messages if isinstance(messages, list) else []):
        if isinstance(message, dict) and message.get("role") == "user":
            content = message.get("content")
            if isinstance(content, str):
                return content
            if isinstance(content, list):
                texts = [part.get("text") for part in content if isinstance(part, dict)]
                return " ".join(text for text in texts if isinstance(text, str))
    return ""
