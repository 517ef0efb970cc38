"""The parts of the Responses API's events. No I/O.

An event with a final value (``*.done``, ``response.completed``) gives what the deltas before it
have not given.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, TypeAlias

from sseflask.completions.json_values import dict_or_empty, list_or_empty, text_or_empty
from sseflask.completions.parts import (
    Approval,
    Attachments,
    HostedCall,
    Part,
    Reasoning,
    Text,
    well_formed,
)
from sseflask.completions.tool_calls import Call

_TEXT = ("output_text", "refusal")
_REASONING = ("reasoning_text", "reasoning_summary_text")
#: Items that are calls of the client's tools.
_TOOL_CALLS = ("function_call", "custom_tool_call")
#: Further items that are calls for the client to make, and their fields.
_CLIENT_CALLS = ("computer_call", "local_shell_call", "shell_call", "apply_patch_call")
_ACTIONS = ("action", "actions", "operation")
#: Fields of an item that are not a call's output.
_NOT_OUTPUT = ("type", "id", "call_id", "status", "name", "arguments", "input")

#: The place of a text: its item's, the kind of text, and its index in the item.
_Slot: TypeAlias = tuple[Any, str, Any]


def is_call(item: Any) -> bool:
    """Whether an item of an output is a call that the model wants the client to make."""
    return dict_or_empty(item).get("type") in (*_TOOL_CALLS, *_CLIENT_CALLS)


class ResponseParts:
    """Reads a response event by event. Not thread-safe, never blocks."""

    def __init__(self) -> None:
        self._texts: dict[_Slot, list[str]] = {}
        self._calls: dict[Any, Call] = {}
        self._hosted: set[Any] = set()
        self._places: dict[str, Any] = {}
        self._attachments = Attachments()

    def feed(self, event: bytes, value: dict[str, Any]) -> Iterator[Part]:
        kind = value.get("type") or event.decode(errors="replace")
        if not isinstance(kind, str) or not kind.startswith("response."):
            return
        stem, _, what = kind[9:].rpartition(".")
        if what == "delta":
            yield from self._delta(stem, value)
        elif what == "done":
            yield from self._done(stem, value)
        elif kind == "response.output_text.annotation.added":
            yield from self._attachments.sources([value.get("annotation")])
        elif kind == "response.output_item.added":
            yield from self._added(self._place(value), dict_or_empty(value.get("item")))

    def finish(self, last: dict[str, Any]) -> Iterator[Part]:
        """The parts that only the upstream's last event has, of which ``last`` is the data."""
        response = dict_or_empty(last.get("response"))
        for number, given in enumerate(list_or_empty(response.get("output"))):
            item = dict_or_empty(given)
            yield from self._item(self._places.get(text_or_empty(item.get("id")), number), item)
        for call in self._calls.values():
            yield from call.finish()

    def _place(self, value: dict[str, Any]) -> Any:
        """The key of an event's item."""
        index = value.get("output_index")
        id = value.get("item_id") or dict_or_empty(value.get("item")).get("id")
        if not isinstance(id, str) or not id:
            return index if isinstance(index, int) else ""
        if not isinstance(index, int):
            return self._places.setdefault(id, id)
        # The index counts, unless it comes late: ids can change from event to event.
        known = self._places.setdefault(id, index)
        return known if isinstance(known, str) else index

    def _delta(self, stem: str, value: dict[str, Any]) -> Iterator[Part]:
        delta, place = value.get("delta"), self._place(value)
        if stem in _TEXT or stem in _REASONING:
            if isinstance(delta, str) and delta:
                self._texts.setdefault(_slot(place, stem, value), []).append(delta)
                yield Text(delta) if stem in _TEXT else Reasoning(delta)
        elif stem in ("function_call_arguments", "custom_tool_call_input"):
            yield from self._call(place, plain=stem == "custom_tool_call_input").feed(delta)

    def _done(self, stem: str, value: dict[str, Any]) -> Iterator[Part]:
        place = self._place(value)
        if stem in _TEXT or stem in _REASONING:
            text = value.get("refusal" if stem == "refusal" else "text")
            yield from self._final_text(_slot(place, stem, value), text)
        elif stem in ("content_part", "reasoning_summary_part"):
            yield from self._content(place, dict_or_empty(value.get("part")), value)
        elif stem in ("function_call_arguments", "custom_tool_call_input"):
            call = self._call(place, plain=stem == "custom_tool_call_input")
            call.id = (
                call.id
                or text_or_empty(value.get("call_id"))
                or text_or_empty(value.get("item_id"))
            )
            if name := text_or_empty(value.get("name")):
                call.add_name(name)
            yield from call.complete_arguments(_arguments(value))
        elif stem == "output_item":
            yield from self._item(place, dict_or_empty(value.get("item")))

    def _added(self, place: Any, item: dict[str, Any]) -> Iterator[Part]:
        if item.get("type") in _TOOL_CALLS:
            call = self._called(place, item)
            call.default_arguments = _arguments(item)
            yield from call.begin()

    def _item(self, place: Any, item: dict[str, Any]) -> Iterator[Part]:
        """What is missing of an item that is complete."""
        kind = item.get("type")
        if kind in _TOOL_CALLS:
            yield from self._called(place, item).complete_arguments(_arguments(item))
        elif kind in ("message", "reasoning"):
            for field, what in (("summary", "summary_index"), ("content", "content_index")):
                for number, part in enumerate(list_or_empty(item.get(field))):
                    yield from self._content(place, dict_or_empty(part), {what: number})
        elif kind in _CLIENT_CALLS:
            call = self._called(place, item)
            call.add_name(kind.removesuffix("_call"))
            action = {name: item[name] for name in _ACTIONS if name in item}
            yield from call.complete_arguments(action)
        elif kind == "mcp_approval_request" and place not in self._hosted:
            self._hosted.add(place)
            yield Approval(
                text_or_empty(item.get("approval_request_id")) or text_or_empty(item.get("id")),
                text_or_empty(item.get("name")),
                _value(item.get("arguments")),
                text_or_empty(item.get("server_label")),
            )
        elif isinstance(kind, str) and kind.endswith("_call") and place not in self._hosted:
            self._hosted.add(place)
            yield _hosted(kind, item)

    def _content(self, place: Any, part: dict[str, Any], value: dict[str, Any]) -> Iterator[Part]:
        kind = part.get("type")
        if kind == "output_text":
            yield from self._attachments.sources(part.get("annotations"))
        if kind == "refusal":
            yield from self._final_text(_slot(place, kind, value), part.get("refusal"))
        elif kind in ("output_text", "text"):
            yield from self._final_text(_slot(place, "output_text", value), part.get("text"))
        elif kind in ("summary_text", "reasoning_text"):
            stem = "reasoning_summary_text" if kind == "summary_text" else kind
            yield from self._final_text(_slot(place, stem, value), part.get("text"))

    def _final_text(self, slot: _Slot, text: Any) -> Iterator[Text | Reasoning]:
        """What is missing of a text that is complete."""
        if not isinstance(text, str) or not text:
            return
        pieces = self._texts.get(slot)
        so_far = well_formed("".join(pieces or []))
        if pieces is None and any(
            other[1] == slot[1] and well_formed("".join(known)) == text
            for other, known in self._texts.items()
        ):
            return  # an upstream that numbers its items anew at the end
        self._texts[slot] = [text]
        if text.startswith(so_far) and len(text) > len(so_far):
            rest = text[len(so_far) :]
            yield Text(rest) if slot[1] in _TEXT else Reasoning(rest)

    def _called(self, place: Any, item: dict[str, Any]) -> Call:
        id = text_or_empty(item.get("call_id"))
        if place not in self._calls and id:  # an upstream that numbers its items anew at the end
            known = next((each for each in self._calls.values() if each.id == id), None)
            if known is not None:
                return known
        call = self._call(place, plain=item.get("type") == "custom_tool_call")
        call.id = id or call.id or text_or_empty(item.get("id"))
        if name := text_or_empty(item.get("name")):
            call.add_name(name)
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


def _hosted(kind: str, item: dict[str, Any]) -> HostedCall:
    name = text_or_empty(item.get("name"))
    return HostedCall(
        text_or_empty(item.get("call_id")) or text_or_empty(item.get("id")),
        f"{kind.removesuffix('_call')}.{name}" if name else kind.removesuffix("_call"),
        _value(item.get("arguments") or item.get("action") or item.get("queries")),
        {field: inner for field, inner in item.items() if field not in _NOT_OUTPUT},
    )


def _value(arguments: Any) -> Any:
    """Arguments as a value of JSON, which most servers spell as text."""
    if not isinstance(arguments, str):
        return arguments or {}
    try:
        return json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        return {"arguments": arguments}
