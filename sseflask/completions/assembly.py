"""A streamed answer as one document, and one document as a streamed answer. No I/O.

Some upstreams stream what was asked for in one piece, and some do not stream what was to be: either
is turned into the other, so that nothing of the answer is lost.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from sseflask.completions.dialects import RESPONSES
from sseflask.completions.frame_splitter import message, read_json, without_nan
from sseflask.completions.outcome import Outcome
from sseflask.completions.parts import ToolCall
from sseflask.completions.tool_calls import ChatCalls

__all__ = ["document_of", "is_answer", "stream_of"]

#: What is said once, though some repeat it with each piece.
_ONCE = ("role", "id", "type", "name")
#: What `ChatCalls` reads of a call.
_OF_CALLS = ("index", "id", "function", "custom", "name", "arguments", "input")


class _Pieces(list[str]):
    """A text that is put together at the end."""


class _Calls:
    """The tool calls of one choice, in all spellings of their pieces."""

    def __init__(self) -> None:
        self._calls = ChatCalls()
        self._told: dict[int, list[ToolCall]] = {}
        self._further: dict[Any, dict[str, Any]] = {}

    def take(self, piece: dict[str, Any]) -> None:
        for told in self._calls.take(piece):
            self._told.setdefault(told.index, []).append(told)
        # What else is said of a call, such as its signature, is found again by its id or index.
        further = {name: piece[name] for name in piece if name not in _OF_CALLS}
        for key in (piece.get("id"), piece.get("index")):
            if further and isinstance(key, (str, int)):
                self._further.setdefault(key, {}).update(further)

    def whole(self) -> list[dict[str, Any]]:
        for told in self._calls.rest():
            self._told.setdefault(told.index, []).append(told)
        return [self._call(index, self._told[index]) for index in sorted(self._told)]

    def _call(self, index: int, pieces: list[ToolCall]) -> dict[str, Any]:
        id = next((each.id for each in pieces if each.id), "")
        name = next((each.name for each in pieces if each.name), "")
        arguments = "".join(each.arguments for each in pieces)
        further = self._further.get(id) or self._further.get(index) or {}
        call = {"id": id, "type": "function", **further}
        if call["type"] == "custom":
            return {**call, "custom": {"name": name, "input": read_json(arguments.encode())}}
        return {**call, "function": {"name": name, "arguments": arguments}}


def is_answer(dialect: str, value: Any) -> bool:
    """Whether a value of JSON is an answer in one piece.

    Args:
        dialect: the name of the API that was asked.
        value: anything that JSON can spell.
    """
    if not isinstance(value, dict):
        return False
    if dialect == RESPONSES:
        return isinstance(value.get("output"), list) and value.get("status") != "failed"
    return isinstance(value.get("choices"), list) and not value.get("error")


def document_of(dialect: str, frames: Iterable[bytes], outcome: Outcome) -> bytes:
    """One document that says what the frames of a complete answer have said.

    Args:
        dialect: the name of the API that they are of.
        frames: all of them but the one that is the end.
        outcome: how it ended.
    """
    if dialect == RESPONSES:
        _, value = message(outcome.frame or b"")
        whole = value.get("response") if isinstance(value, dict) else None
        return _as_json(whole if isinstance(whole, dict) else {})
    return _as_json(_completion(frames))


def _completion(frames: Iterable[bytes]) -> dict[str, Any]:
    head: dict[str, Any] = {"id": "", "object": "chat.completion", "created": 0, "model": ""}
    choices: dict[int, dict[str, Any]] = {}
    calls: dict[int, _Calls] = {}
    for frame in frames:
        _, value = message(frame)
        if not isinstance(value, dict):
            continue
        for name, inner in value.items():
            if name not in ("object", "choices") and (inner or name not in head):
                head[name] = inner
        for choice in _dicts(value.get("choices")):
            index = _take_choice(choices, choice)
            said = choice.get("delta") or choice.get("message")
            for piece in _dicts(said.get("tool_calls") if isinstance(said, dict) else None):
                calls.setdefault(index, _Calls()).take(piece)
    for index, choice in choices.items():
        said = choice["message"] = _joined(choice["message"])
        if index in calls:
            said["tool_calls"] = calls[index].whole()
    return {**head, "choices": [choices[index] for index in sorted(choices)]}


def _take_choice(choices: dict[int, dict[str, Any]], choice: dict[str, Any]) -> int:
    index = choice.get("index")
    index = index if isinstance(index, int) else 0
    whole = choices.get(index)
    if whole is None:
        said = {"role": "assistant", "content": None}
        whole = choices[index] = {"index": index, "message": said, "finish_reason": None}
    for name, inner in choice.items():
        if name in ("delta", "message"):
            if isinstance(inner, dict):
                _merge(whole["message"], inner)
        elif name == "logprobs" and isinstance(inner, dict):
            if not isinstance(whole.get(name), dict):
                whole[name] = {}
            _merge(whole[name], inner)
        elif name != "index" and (inner or name not in whole):
            whole[name] = inner
    return index


def _merge(into: dict[str, Any], delta: dict[str, Any]) -> None:
    for name, new in delta.items():
        old = into.get(name)
        if new is None:
            into.setdefault(name, None)
        elif name == "tool_calls":
            continue  # see _Calls
        elif name in _ONCE:
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
                into[name] = [{"type": "text", "text": "".join(old)}, *new]
            else:
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
    """The frames that say what a document says, the end included.

    Args:
        dialect: the name of the API that it is of.
        value: an answer, see `is_answer`.
    """
    if dialect != RESPONSES:
        return _chunks(value)
    return [
        b"event: %b\ndata: %b\n\n"
        % (event["type"].encode(), _as_json({**event, "sequence_number": number}))
        for number, event in enumerate(_events(value))
    ]


def _chunks(value: dict[str, Any]) -> list[bytes]:
    said, ends = [], []
    for position, choice in enumerate(_dicts(value["choices"])):
        given = choice.get("message") or choice.get("delta")
        delta = dict(given) if isinstance(given, dict) else {}
        if isinstance(delta.get("tool_calls"), list):
            delta["tool_calls"] = [
                {"index": number, **call} for number, call in enumerate(_dicts(delta["tool_calls"]))
            ]
        index = choice.get("index", position)
        rest = {name: choice[name] for name in choice if name not in ("message", "delta", "error")}
        said.append({**rest, "index": index, "delta": delta, "finish_reason": None})
        end = {"index": index, "delta": {}, "finish_reason": choice.get("finish_reason")}
        ends.append({**end, "error": choice["error"]} if choice.get("error") else end)
    head = {**value, "object": "chat.completion.chunk"}
    usage = head.pop("usage", None)
    first = {**head, "choices": said}
    last = {**head, "choices": ends, **({"usage": usage} if usage else {})}
    return [*(b"data: %b\n\n" % _as_json(each) for each in (first, last)), b"data: [DONE]\n\n"]


def _events(value: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Those of the Responses API, each piece of the answer as one delta."""
    begun = {**value, "status": "in_progress", "output": [], "usage": None}
    yield {"type": "response.created", "response": begun}
    for index, item in enumerate(_dicts(value["output"])):
        at = {"output_index": index}
        empty = {
            name: "" if name == "arguments" else [] if name in ("content", "summary") else inner
            for name, inner in item.items()
        }
        yield {"type": "response.output_item.added", **at, "item": empty}
        at["item_id"] = item.get("id", "")
        for kind in ("summary", "content"):
            for number, part in enumerate(_dicts(item.get(kind))):
                yield from _events_of_part(kind, {**at, f"{kind}_index": number}, part)
        if isinstance(item.get("arguments"), str):
            event = "response.function_call_arguments"
            yield {"type": f"{event}.delta", **at, "delta": item["arguments"]}
            yield {"type": f"{event}.done", **at, "arguments": item["arguments"]}
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    state = value.get("status")
    ended = state if state in ("incomplete", "cancelled", "expired") else "completed"
    yield {"type": f"response.{ended}", "response": value}


def _events_of_part(
    kind: str, at: dict[str, Any], part: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    group = "reasoning_summary" if kind == "summary" else "content"
    name, event = {
        "output_text": ("text", "response.output_text"),
        "refusal": ("refusal", "response.refusal"),
        "summary_text": ("text", "response.reasoning_summary_text"),
        "reasoning_text": ("text", "response.reasoning_text"),
    }.get(str(part.get("type")), ("text", ""))
    text = part.get(name)
    yield {"type": f"response.{group}_part.added", **at, "part": {**part, name: ""}}
    if event and isinstance(text, str):
        yield {"type": f"{event}.delta", **at, "delta": text}
        yield {"type": f"{event}.done", **at, name: text}
    yield {"type": f"response.{group}_part.done", **at, "part": part}


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _as_json(value: Any) -> bytes:
    # In ASCII, so that half a letter may be in it.
    try:
        text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    except ValueError:
        text = json.dumps(without_nan(value), separators=(",", ":"))
    return text.encode()
