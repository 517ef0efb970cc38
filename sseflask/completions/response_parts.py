"""What the events of the Responses API say: pieces, and whole values where no piece came.

No I/O. A value that is final (``*.done``, ``response.completed``) is told as far as the pieces
before it have not told it already.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, TypeAlias

from sseflask.completions.attachments import Attachments
from sseflask.completions.parts import Approval, HostedCall, Part, Reasoning, Text
from sseflask.completions.tool_calls import Call

__all__ = ["ResponseParts", "is_call"]

_TEXT = ("output_text", "refusal")
_REASONING = ("reasoning_text", "reasoning_summary_text")
#: Items that are calls of the client's tools.
_NAMED = ("function_call", "custom_tool_call")
#: Further items that are calls for the client to make, and what they say of them.
_FOR_THE_CLIENT = ("computer_call", "local_shell_call", "shell_call", "apply_patch_call")
_ACTIONS = ("action", "actions", "operation")
#: Fields of an item that are none of a call's output.
_ABOUT = ("type", "id", "call_id", "status", "name", "arguments", "input")

_Slot: TypeAlias = tuple[Any, str, Any]
"""The place of a text: the item's, what kind of text, and which of its item's."""


def is_call(item: Any) -> bool:
    """Whether an item of an output is a call that the model wants the client to make."""
    if not isinstance(item, dict):
        return False
    return item.get("type") in (*_NAMED, *_FOR_THE_CLIENT)


class ResponseParts:
    """Reads an answer event by event. Not thread-safe, never blocks."""

    def __init__(self) -> None:
        self._told: dict[_Slot, list[str]] = {}
        self._calls: dict[Any, Call] = {}
        self._hosted: set[Any] = set()
        self._places: dict[str, Any] = {}
        self._attachments = Attachments()

    def take(self, kind: Any, value: dict[str, Any]) -> Iterator[Part]:
        """What an event says.

        Args:
            kind: its type.
            value: its data.
        """
        if not isinstance(kind, str) or not kind.startswith("response."):
            return
        stem, _, what = kind[9:].rpartition(".")
        if what == "delta":
            yield from self._piece(stem, value)
        elif what == "done":
            yield from self._whole(stem, value)
        elif kind == "response.output_text.annotation.added":
            yield from self._attachments.sources([value.get("annotation")])
        elif kind == "response.output_item.added":
            item = value.get("item")
            if isinstance(item, dict):
                yield from self._added(self._place(value), item)

    def rest(self, last: dict[str, Any] | None) -> Iterator[Part]:
        """What has not been told of the answer until its end.

        Args:
            last: the data of the upstream's own last event, where there is one.
        """
        response = last.get("response") if last is not None else None
        output = response.get("output") if isinstance(response, dict) else None
        if isinstance(output, list):
            for number, item in enumerate(output):
                if isinstance(item, dict):
                    yield from self._item(self._places.get(_text(item.get("id")), number), item)
        for call in self._calls.values():
            yield from call.rest()

    def _place(self, value: dict[str, Any]) -> Any:
        """What tells an event's item from the others."""
        index, item = value.get("output_index"), value.get("item")
        id = value.get("item_id") or (item.get("id") if isinstance(item, dict) else None)
        if not isinstance(id, str) or not id:
            return index if isinstance(index, int) else ""
        if not isinstance(index, int):
            return self._places.setdefault(id, id)
        # The index counts, for ids can change from event to event; unless it comes late.
        known = self._places.setdefault(id, index)
        return known if isinstance(known, str) else index

    def _piece(self, stem: str, value: dict[str, Any]) -> Iterator[Part]:
        delta, place = value.get("delta"), self._place(value)
        if stem in _TEXT or stem in _REASONING:
            if isinstance(delta, str) and delta:
                self._told.setdefault(_slot(place, stem, value), []).append(delta)
                yield Text(delta) if stem in _TEXT else Reasoning(delta)
        elif stem in ("function_call_arguments", "custom_tool_call_input"):
            yield from self._call(place, plain=stem == "custom_tool_call_input").take(delta)

    def _whole(self, stem: str, value: dict[str, Any]) -> Iterator[Part]:
        place = self._place(value)
        if stem in _TEXT or stem in _REASONING:
            text = value.get("refusal" if stem == "refusal" else "text")
            yield from self._text(_slot(place, stem, value), text)
        elif stem in ("content_part", "reasoning_summary_part"):
            part = value.get("part")
            if isinstance(part, dict):
                yield from self._content(place, part, value)
        elif stem in ("function_call_arguments", "custom_tool_call_input"):
            call = self._call(place, plain=stem == "custom_tool_call_input")
            call.id = call.id or _text(value.get("call_id")) or _text(value.get("item_id"))
            if name := _text(value.get("name")):
                call.named(name)
            yield from call.finish(_arguments(value))
        elif stem == "output_item":
            item = value.get("item")
            if isinstance(item, dict):
                yield from self._item(place, item)

    def _added(self, place: Any, item: dict[str, Any]) -> Iterator[Part]:
        if item.get("type") in _NAMED:
            call = self._called(place, item)
            call.presumed = _arguments(item)
            yield from call.begin()

    def _item(self, place: Any, item: dict[str, Any]) -> Iterator[Part]:
        """What has not been told of an item that is whole."""
        kind = item.get("type")
        if kind in _NAMED:
            yield from self._called(place, item).finish(_arguments(item))
        elif kind in ("message", "reasoning"):
            for field, what in (("summary", "summary_index"), ("content", "content_index")):
                parts = item.get(field)
                for number, part in enumerate(parts if isinstance(parts, list) else []):
                    if isinstance(part, dict):
                        yield from self._content(place, part, {what: number})
        elif kind in _FOR_THE_CLIENT:
            call = self._called(place, item)
            call.named(kind.removesuffix("_call"))
            yield from call.finish({name: item[name] for name in _ACTIONS if name in item})
        elif kind == "mcp_approval_request" and place not in self._hosted:
            self._hosted.add(place)
            yield Approval(
                _text(item.get("approval_request_id")) or _text(item.get("id")),
                _text(item.get("name")),
                _value(item.get("arguments")),
                _text(item.get("server_label")),
            )
        elif isinstance(kind, str) and kind.endswith("_call") and place not in self._hosted:
            self._hosted.add(place)
            yield _hosted(place, kind, item)

    def _content(self, place: Any, part: dict[str, Any], value: dict[str, Any]) -> Iterator[Part]:
        kind = part.get("type")
        if kind == "output_text":
            yield from self._attachments.sources(part.get("annotations"))
        if kind == "refusal":
            yield from self._text(_slot(place, kind, value), part.get("refusal"))
        elif kind in ("output_text", "text"):
            yield from self._text(_slot(place, "output_text", value), part.get("text"))
        elif kind in ("summary_text", "reasoning_text"):
            stem = "reasoning_summary_text" if kind == "summary_text" else kind
            yield from self._text(_slot(place, stem, value), part.get("text"))

    def _text(self, slot: _Slot, text: Any) -> Iterator[Text | Reasoning]:
        """What has not been told of a text that is whole."""
        if not isinstance(text, str) or not text:
            return
        pieces = self._told.get(slot)
        told = _joined(pieces or [])
        if pieces is None and any(
            other[1] == slot[1] and _joined(known) == text for other, known in self._told.items()
        ):
            return  # an upstream that numbers its items anew at the end
        self._told[slot] = [text]
        if text.startswith(told) and len(text) > len(told):
            rest = text[len(told) :]
            yield Text(rest) if slot[1] in _TEXT else Reasoning(rest)

    def _called(self, place: Any, item: dict[str, Any]) -> Call:
        id = _text(item.get("call_id"))
        if place not in self._calls and id:  # an upstream that numbers its items anew at the end
            known = next((each for each in self._calls.values() if each.id == id), None)
            if known is not None:
                return known
        call = self._call(place, plain=item.get("type") == "custom_tool_call")
        call.id = id or call.id or _text(item.get("id"))
        if name := _text(item.get("name")):
            call.named(name)
        return call

    def _call(self, place: Any, *, plain: bool) -> Call:
        call = self._calls.get(place)
        if call is None:
            taken = {each.index for each in self._calls.values()}
            index = place if isinstance(place, int) else max(taken, default=-1) + 1
            call = self._calls[place] = Call(index, plain=plain)
        return call


def _slot(place: Any, stem: str, value: dict[str, Any]) -> _Slot:
    number = value.get("summary_index" if stem == "reasoning_summary_text" else "content_index")
    return place, stem, number if isinstance(number, int) else 0


def _arguments(value: dict[str, Any]) -> Any:
    given = value.get("arguments")
    return value.get("input") if given is None else given


def _hosted(place: Any, kind: str, item: dict[str, Any]) -> HostedCall:
    arguments = item.get("arguments") or item.get("action") or item.get("queries")
    name = _text(item.get("name"))
    return HostedCall(
        place if isinstance(place, int) else 0,
        _text(item.get("call_id")) or _text(item.get("id")),
        f"{kind.removesuffix('_call')}.{name}" if name else kind.removesuffix("_call"),
        _value(arguments),
        {field: inner for field, inner in item.items() if field not in _ABOUT},
    )


def _value(arguments: Any) -> Any:
    """Arguments as a value of JSON, which most servers spell as text."""
    if not isinstance(arguments, str):
        return arguments or {}
    try:
        return json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        return {"arguments": arguments}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _joined(pieces: list[str]) -> str:
    text = "".join(pieces)
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
