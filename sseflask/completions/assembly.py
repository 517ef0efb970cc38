"""A streamed answer as one document, and one document as a streamed answer. No I/O.

Some upstreams stream what was asked for in one piece, and some do not stream what was to be: either
is turned into the other, so that nothing of the answer is lost.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from sseflask.completions.dialects import RESPONSES
from sseflask.completions.frames import message
from sseflask.completions.outcome import Outcome

__all__ = ["document_of", "is_answer", "stream_of"]

#: What is said once, though some repeat it with each piece.
_ONCE = ("role", "id", "type", "name")


class _Pieces(list[str]):
    """A text that is put together at the end."""


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
        return _as_json(value.get("response") if isinstance(value, dict) else None)
    return _as_json(_completion(frames))


def _completion(frames: Iterable[bytes]) -> dict[str, Any]:
    head: dict[str, Any] = {"id": "", "object": "chat.completion", "created": 0, "model": ""}
    choices: dict[Any, dict[str, Any]] = {}
    for frame in frames:
        _, value = message(frame)
        if not isinstance(value, dict):
            continue
        for name, inner in value.items():
            if name not in ("object", "choices") and (inner is not None or name not in head):
                head[name] = inner
        for choice in _dicts(value.get("choices")):
            _take_choice(choices, choice)
    for choice in choices.values():
        said = choice["message"] = _joined(choice["message"])
        for call in _dicts(said.get("tool_calls")):
            call.pop("index", None)
            function = call.get("function")
            if isinstance(function, dict) and isinstance(function.get("arguments"), (dict, list)):
                function["arguments"] = _as_json(function["arguments"]).decode()
    return {**head, "choices": [choices[index] for index in sorted(choices)]}


def _take_choice(choices: dict[Any, dict[str, Any]], choice: dict[str, Any]) -> None:
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


def _merge(into: dict[str, Any], delta: dict[str, Any]) -> None:
    for name, new in delta.items():
        old = into.get(name)
        if new is None:
            into.setdefault(name, None)
        elif name == "tool_calls" and isinstance(new, list):
            if not isinstance(old, list):
                old = into[name] = []
            for call in _dicts(new):
                _merge_call(old, call)
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


def _merge_call(calls: list[dict[str, Any]], piece: dict[str, Any]) -> None:
    """A call goes on where its index or its id is the same; another id is another call."""
    index, id = piece.get("index"), piece.get("id")
    same = None
    if isinstance(index, int):
        same = next((call for call in reversed(calls) if call.get("index") == index), None)
        if same is not None and id and same.get("id") not in (None, "", id):
            same = None
    elif id:
        same = next((call for call in calls if call.get("id") == id), None)
    elif calls:
        same = calls[-1]
    if same is None:
        same = {}
        calls.append(same)
    _merge(same, piece)


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
        rest = {name: choice[name] for name in choice if name not in ("message", "delta")}
        said.append({**rest, "index": index, "delta": delta, "finish_reason": None})
        reason = choice.get("finish_reason")
        ends.append({"index": index, "delta": {}, "finish_reason": reason})
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
    incomplete = value.get("status") == "incomplete"
    yield {"type": f"response.{'incomplete' if incomplete else 'completed'}", "response": value}


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
    return json.dumps(value, separators=(",", ":")).encode()
