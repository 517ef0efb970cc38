"""Tool calls put together from the pieces that upstreams send, in the known spellings. No I/O.

The pieces that are given of a call's arguments always make one JSON text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from sseflask.completions.json_values import text_or_empty
from sseflask.completions.parts import ToolCall


class Call:
    """One call. It is given once its name is known and its arguments begin, or at the end.

    Arguments that are plain text are given as a JSON string.
    """

    def __init__(self, index: int, *, plain: bool = False) -> None:
        self.index = index
        self.id = ""
        self.name = ""
        self.default_arguments: Any = None  # unless others come
        self._plain = plain
        self._quoted = self._ended = False
        self._given = False
        self._held = ""
        self._value: Any = None
        self._pieces: list[str] = []

    @property
    def arguments(self) -> str:
        if self._value is None or self._pieces:
            return "".join(self._pieces)
        return json.dumps(self._value, ensure_ascii=False, separators=(",", ":"))

    @property
    def has_arguments(self) -> bool:
        return bool(self._pieces) or self._value is not None

    @property
    def complete(self) -> bool:
        """Whether the arguments so far are a complete value."""
        if not self._pieces:
            return self._value is not None
        try:
            json.loads(self.arguments)
        except (ValueError, RecursionError):
            return False
        return True

    def begin(self) -> Iterator[ToolCall]:
        """Give the call without waiting for its arguments: its name is complete."""
        if not self._given and self.name:
            yield self._first("")

    def add_name(self, piece: str) -> None:
        """Add a piece of the name; one that repeats all of it changes nothing."""
        if not self._given and not self.has_arguments:
            self.name = piece if piece.startswith(self.name) else self.name + piece
        elif not self.name:
            self.name = piece

    def feed(self, arguments: Any) -> Iterator[ToolCall]:
        """Add a piece of the arguments' text, or all of them as a value."""
        if isinstance(arguments, str):
            if arguments:
                self._pieces.append(arguments)
                yield from self._give(arguments)
        elif isinstance(arguments, dict) and isinstance(self._value, dict):
            self._value = {**self._value, **arguments}
        elif arguments is not None:
            self._value = arguments

    def complete_arguments(self, arguments: Any) -> Iterator[ToolCall]:
        """Add what is missing of the arguments, which are complete here."""
        if isinstance(arguments, str):
            so_far = "".join(self._pieces)
            if not arguments.startswith(so_far):
                return
            arguments = arguments[len(so_far) :]
        yield from self.feed(arguments)

    def finish(self) -> Iterator[ToolCall]:
        """Give what is held back, as the call is at its end; called again, give nothing."""
        if self._ended:
            return
        self._ended = True
        if not self.has_arguments:
            yield from self.feed(self.default_arguments)
        if self._value is not None and not self._pieces:
            yield from self._give(self.arguments)
        if self._plain:
            yield from self._give("")
            yield from self._give('"', quoted=True)
        if not self._given:
            yield self._first("")

    def _give(self, arguments: str, *, quoted: bool = False) -> Iterator[ToolCall]:
        if self._plain and not quoted:
            arguments = json.dumps(arguments, ensure_ascii=False)[1 if self._quoted else 0 : -1]
            self._quoted = True
        if self._given:
            if arguments:
                yield ToolCall(self.index, "", "", arguments)
        elif self.name:
            yield self._first(arguments)
        else:
            self._held += arguments

    def _first(self, arguments: str) -> ToolCall:
        self._given = True
        held, self._held = self._held, ""
        return ToolCall(self.index, self.id, self.name, held + arguments)


class ChatCalls:
    """The calls of one choice of Chat Completions, in the order in which they began."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._by_id: dict[str, Call] = {}
        self._by_index: dict[int, Call] = {}

    def feed(self, piece: dict[str, Any]) -> Iterator[ToolCall]:
        """Add an item of ``tool_calls``, or a ``function_call``."""
        function, custom = piece.get("function"), piece.get("custom")
        plain = isinstance(custom, dict) and not isinstance(function, dict)
        function = custom if plain else function
        if not isinstance(function, dict):
            function = piece  # without the object in between
        id, name = text_or_empty(piece.get("id")), text_or_empty(function.get("name"))
        arguments = function.get("arguments")
        if arguments is None:
            arguments = function.get("input")
        if not id and not name and arguments in (None, ""):
            return
        index = _index(piece.get("index"))
        call = self._find(id, index, name, arguments)
        if call is None:
            call = self._begin(index, plain)
        if id:
            self._by_id[id] = call
            call.id = call.id or id
        if index is not None:
            self._by_index[index] = call
        if name:
            call.add_name(name)
        yield from call.feed(arguments)

    def finish(self) -> Iterator[ToolCall]:
        for call in self.calls:
            yield from call.finish()

    def _find(self, id: str, index: int | None, name: str, arguments: Any) -> Call | None:
        """The call that a piece belongs to; ``None`` if it begins another one."""
        there = None if index is None else self._by_index.get(index)
        if id and id in self._by_id:
            if there is not None and there.id == id:
                return there
            # Some servers give all calls of a completion one id.
            return None if index is not None and there is None and name else self._by_id[id]
        known = there if index is not None else (self.calls[-1] if self.calls else None)
        if known is None or not (id or name):
            return known
        goes_on = isinstance(arguments, str) and not arguments.lstrip().startswith("{")
        if id and known.id:
            # A fresh id is a fresh call; but some servers make one up for every piece of a call.
            if index is None or (name and not (name == known.name and arguments and goes_on)):
                return None
            return known
        if not name or not known.name:
            return known
        if name != known.name:  # another function's, or a piece of the name
            return None if index is None or known.has_arguments else known
        return known if goes_on or arguments is None or not known.complete else None

    def _begin(self, index: int | None, plain: bool) -> Call:
        taken = {call.index for call in self.calls}
        if index is None or index in taken:
            index = max(taken, default=-1) + 1
        call = Call(index, plain=plain)
        self.calls.append(call)
        return call


def _index(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value == value:
        return int(value) if abs(value) < 1_000_000_000 else None
    return None
