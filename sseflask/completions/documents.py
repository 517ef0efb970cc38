"""A streamed completion as one JSON document, and a document as a stream. No I/O.

Some upstreams stream although that was not asked for, and some do not stream although it was.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from sseflask.completions.completion_outcome import CompletionOutcome
from sseflask.completions.dialects import RESPONSES
from sseflask.completions.frame_splitter import message, without_nan
from sseflask.completions.json_values import dict_or_empty, dicts, list_or_empty
from sseflask.completions.tool_calls import Call, ChatCalls
from sseflask.completions.upstream_errors import masked

#: Fields of a delta that some upstreams repeat in each chunk.
_NOT_APPENDED = ("role", "id", "type", "name")
#: Fields of a tool call that `ChatCalls` reads.
_READ_BY_CHAT_CALLS = ("index", "id", "function", "custom", "name", "arguments", "input")
#: By the type of a part: the field with its text, and the events of this text.
_PART_EVENTS = {
    "output_text": ("text", "response.output_text"),
    "refusal": ("refusal", "response.refusal"),
    "summary_text": ("text", "response.reasoning_summary_text"),
    "reasoning_text": ("text", "response.reasoning_text"),
}


def is_completion(dialect: str, value: Any) -> bool:
    """Whether a value of JSON is a completion of this API in one document."""
    if not isinstance(value, dict):
        return False
    if dialect == RESPONSES:
        return isinstance(value.get("output"), list) and value.get("status") != "failed"
    return isinstance(value.get("choices"), list) and not value.get("error")


def error_of_choices(value: Any) -> Any:
    """The error of a document whose choices have errors alone; ``None`` for any other document."""
    choices = list_or_empty(dict_or_empty(value).get("choices"))
    errors = [dict_or_empty(each).get("error") for each in choices]
    if not errors or not all(errors) or any(map(has_content, choices)):
        return None
    return errors[0]


def without_secrets(value: dict[str, Any], secrets: tuple[str, ...]) -> bytes | None:
    """A document with secrets masked in its choices' errors; ``None`` if there were none."""
    choices = list_or_empty(value.get("choices"))
    safe = [
        {**each, "error": masked(each["error"], secrets)}
        if dict_or_empty(each).get("error")
        else each
        for each in choices
    ]
    return None if safe == choices else json.dumps({**value, "choices": safe}).encode()


def has_content(choice: dict[str, Any]) -> bool:
    """Whether a choice has a part of the answer."""
    delta = dict_or_empty(choice.get("delta") or choice.get("message"))
    return bool(choice.get("text")) or any(delta[name] for name in delta if name != "role")


def document_of(dialect: str, frames: Iterable[bytes], outcome: CompletionOutcome) -> bytes:
    """The document of a complete stream, from all its frames except the last, which ends it."""
    if dialect == RESPONSES:
        _, value = message(outcome.frame or b"")
        return _as_json(dict_or_empty(dict_or_empty(value).get("response")))
    return _as_json(_completion(frames))


def _completion(frames: Iterable[bytes]) -> dict[str, Any]:
    head: dict[str, Any] = {"id": "", "object": "chat.completion", "created": 0, "model": ""}
    choices: dict[int, _Choice] = {}
    for frame in frames:
        chunk = dict_or_empty(message(frame)[1])
        for name, value in chunk.items():
            if name not in ("object", "choices") and (value or name not in head):
                head[name] = value
        for choice in dicts(chunk.get("choices")):
            index = choice.get("index")
            index = index if isinstance(index, int) else 0
            choices.setdefault(index, _Choice(index)).add(choice)
    return {**head, "choices": [choices[index].to_json() for index in sorted(choices)]}


class _Pieces(list[str]):
    """A text that is joined at the end."""


class _Choice:
    def __init__(self, index: int) -> None:
        message = {"role": "assistant", "content": None}
        self._value: dict[str, Any] = {"index": index, "message": message, "finish_reason": None}
        self._calls: ChatCalls | None = None
        self._further: dict[Any, dict[str, Any]] = {}

    def add(self, choice: dict[str, Any]) -> None:
        for name, value in choice.items():
            if name in ("delta", "message"):
                if isinstance(value, dict):
                    _merge(self._value["message"], value)
            elif name == "logprobs" and isinstance(value, dict):
                if not isinstance(self._value.get(name), dict):
                    self._value[name] = {}
                _merge(self._value[name], value)
            elif name != "index" and (value or name not in self._value):
                self._value[name] = value
        delta = dict_or_empty(choice.get("delta") or choice.get("message"))
        for piece in dicts(delta.get("tool_calls")):
            self._calls = self._calls or ChatCalls()
            for _ in self._calls.feed(piece):
                pass  # it is read at the end
            # Further fields of a call, such as its signature, belong to its id or index.
            further = {name: piece[name] for name in piece if name not in _READ_BY_CHAT_CALLS}
            for key in (piece.get("id"), piece.get("index")):
                if further and isinstance(key, (str, int)):
                    self._further.setdefault(key, {}).update(further)

    def to_json(self) -> dict[str, Any]:
        message = _joined(self._value["message"])
        if self._calls is not None:
            calls = sorted(self._calls.calls, key=lambda call: call.index)
            message["tool_calls"] = [self._call(call) for call in calls]
        return {**self._value, "message": message}

    def _call(self, call: Call) -> dict[str, Any]:
        further = self._further.get(call.id) or self._further.get(call.index) or {}
        value = {"id": call.id, "type": "function", **further}
        if value["type"] == "custom":
            return {**value, "custom": {"name": call.name, "input": call.arguments}}
        return {**value, "function": {"name": call.name, "arguments": call.arguments}}


def _merge(into: dict[str, Any], delta: dict[str, Any]) -> None:
    for name, new in delta.items():
        old = into.get(name)
        if new is None:
            into.setdefault(name, None)
        elif name == "tool_calls":
            continue  # `ChatCalls` puts them together
        elif name in _NOT_APPENDED:
            into[name] = old or new
        elif isinstance(new, str):
            if isinstance(old, _Pieces):
                old.append(new)
            elif isinstance(old, list):
                old.append({"type": "text", "text": new})
            else:
                into[name] = _Pieces([new])
        elif isinstance(new, list):
            if isinstance(old, _Pieces):
                old = [{"type": "text", "text": "".join(old)}]
            into[name] = [*(old if isinstance(old, list) else ()), *new]
        elif isinstance(new, dict):
            if not isinstance(old, dict):
                old = into[name] = {}
            _merge(old, new)
        else:
            into[name] = new


def _joined(value: Any) -> Any:
    if isinstance(value, _Pieces):
        return "".join(value)
    if isinstance(value, dict):
        return {name: _joined(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_joined(inner) for inner in value]
    return value


def stream_of(dialect: str, value: dict[str, Any]) -> list[bytes]:
    """The frames of a document that `is_completion`, the end included."""
    if dialect != RESPONSES:
        chunks = (b"data: %b\n\n" % _as_json(chunk) for chunk in _chunks(value))
        return [*chunks, b"data: [DONE]\n\n"]
    return [
        b"event: %b\ndata: %b\n\n"
        % (event["type"].encode(), _as_json({**event, "sequence_number": number}))
        for number, event in enumerate(_events(value))
    ]


def _chunks(value: dict[str, Any]) -> Iterator[dict[str, Any]]:
    choices, ends = [], []
    for position, choice in enumerate(dicts(value["choices"])):
        delta = dict(dict_or_empty(choice.get("message") or choice.get("delta")))
        if isinstance(delta.get("tool_calls"), list):
            delta["tool_calls"] = [
                {"index": number, **call} for number, call in enumerate(dicts(delta["tool_calls"]))
            ]
        index = choice.get("index", position)
        rest = {name: choice[name] for name in choice if name not in ("message", "delta", "error")}
        choices.append({**rest, "index": index, "delta": delta, "finish_reason": None})
        end = {"index": index, "delta": {}, "finish_reason": choice.get("finish_reason")}
        ends.append({**end, "error": choice["error"]} if choice.get("error") else end)
    head = {**value, "object": "chat.completion.chunk"}
    usage = head.pop("usage", None)
    yield {**head, "choices": choices}
    yield {**head, "choices": ends, **({"usage": usage} if usage else {})}


def _events(value: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The events of a response, with one delta for each part."""
    begun = {**value, "status": "in_progress", "output": [], "usage": None}
    yield {"type": "response.created", "response": begun}
    for index, item in enumerate(dicts(value["output"])):
        at = {"output_index": index}
        empty = {
            name: "" if name == "arguments" else [] if name in ("content", "summary") else inner
            for name, inner in item.items()
        }
        yield {"type": "response.output_item.added", **at, "item": empty}
        at["item_id"] = item.get("id", "")
        for kind in ("summary", "content"):
            for number, part in enumerate(dicts(item.get(kind))):
                yield from _events_of_part(kind, {**at, f"{kind}_index": number}, part)
        if isinstance(item.get("arguments"), str):
            event = "response.function_call_arguments"
            yield {"type": f"{event}.delta", **at, "delta": item["arguments"]}
            yield {"type": f"{event}.done", **at, "arguments": item["arguments"]}
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    status = value.get("status")
    end = status if status in ("incomplete", "cancelled", "expired") else "completed"
    yield {"type": f"response.{end}", "response": value}


def _events_of_part(
    kind: str, at: dict[str, Any], part: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    group = "reasoning_summary" if kind == "summary" else "content"
    name, event = _PART_EVENTS.get(str(part.get("type")), ("text", ""))
    text = part.get(name)
    yield {"type": f"response.{group}_part.added", **at, "part": {**part, name: ""}}
    if event and isinstance(text, str):
        yield {"type": f"{event}.delta", **at, "delta": text}
        yield {"type": f"{event}.done", **at, name: text}
    yield {"type": f"response.{group}_part.done", **at, "part": part}


def _as_json(value: Any) -> bytes:
    # In ASCII, so that half a surrogate pair may be in it.
    try:
        text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    except ValueError:
        text = json.dumps(without_nan(value), separators=(",", ":"))
    return text.encode()
