"""Tool calls put together from the pieces that upstreams send, in the spellings that are about.

No I/O. A call is told from its first piece on, and the pieces are always ones of one JSON text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from sseflask.completions.parts import ToolCall

__all__ = ["Call", "ChatCalls", "json_text"]


def json_text(value: Any) -> str:
    """A value as JSON on one line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


class Call:
    """One call. It is told once its name is known and its arguments begin, or at the end.

    Args:
        index: tells the calls of one answer apart.
        plain: the arguments are plain text, which is told as a JSON string.

    Attributes:
        id: what the answer to it has to name.
        name: the function's.
        presumed: its arguments, unless others come.
    """

    def __init__(self, index: int, *, plain: bool = False) -> None:
        self.index = index
        self.id = ""
        self.name = ""
        self.presumed: Any = None
        self._plain = plain
        self._quoted = self._ended = False
        self._told = False
        self._held = ""
        self._value: Any = None
        self._arguments: list[str] = []

    @property
    def arguments(self) -> str:
        """What has come of them as text."""
        return "".join(self._arguments)

    @property
    def has_arguments(self) -> bool:
        """Whether any have come."""
        return bool(self._arguments) or self._value is not None

    @property
    def complete(self) -> bool:
        """Whether what has come of the arguments is a whole value."""
        if not self._arguments:
            return self._value is not None
        try:
            json.loads(self.arguments)
        except (ValueError, RecursionError):
            return False
        return True

    def begin(self) -> Iterator[ToolCall]:
        """Tell the call without waiting for its arguments: its name is whole."""
        if not self._told and self.name:
            yield self._piece("")

    def named(self, piece: str) -> None:
        """Take a piece of the name; one that says the whole again changes nothing."""
        if not self._told and not self.has_arguments:
            self.name = piece if piece.startswith(self.name) else self.name + piece
        elif not self.name:
            self.name = piece

    def take(self, arguments: Any) -> Iterator[ToolCall]:
        """Take a piece of the arguments' text, or all of them as a value."""
        if isinstance(arguments, str):
            if arguments:
                self._arguments.append(arguments)
                yield from self._tell(arguments)
        elif isinstance(arguments, dict) and isinstance(self._value, dict):
            self._value = {**self._value, **arguments}
        elif arguments is not None:
            self._value = arguments

    def finish(self, arguments: Any) -> Iterator[ToolCall]:
        """Take the arguments as they are at last: what has not been told of them is told."""
        if isinstance(arguments, str):
            told = self.arguments
            if arguments.startswith(told):
                yield from self.take(arguments[len(told) :])
        else:
            yield from self.take(arguments)

    def rest(self) -> Iterator[ToolCall]:
        """Tell what is held back: the call is at its end. Nothing more at a second time."""
        if self._ended:
            return
        self._ended = True
        if not self.has_arguments:
            yield from self.take(self.presumed)
        if self._value is not None and not self._arguments:
            yield from self._tell(json_text(self._value))
        if self._plain:
            yield from self._tell("")
            yield from self._tell('"', quoted=True)
        if not self._told:
            yield self._piece("")

    def _tell(self, arguments: str, *, quoted: bool = False) -> Iterator[ToolCall]:
        if self._plain and not quoted:
            arguments = json.dumps(arguments, ensure_ascii=False)[1 if self._quoted else 0 : -1]
            self._quoted = True
        if self._told:
            if arguments:
                yield ToolCall(self.index, "", "", arguments)
        elif self.name:
            yield self._piece(arguments)
        else:
            self._held += arguments

    def _piece(self, arguments: str) -> ToolCall:
        self._told = True
        held, self._held = self._held, ""
        return ToolCall(self.index, self.id, self.name, held + arguments)


class ChatCalls:
    """The calls of one answer of Chat Completions. Not thread-safe, never blocks."""

    def __init__(self) -> None:
        self._calls: list[Call] = []
        self._by_id: dict[str, Call] = {}
        self._by_index: dict[int, Call] = {}

    def take(self, piece: dict[str, Any]) -> Iterator[ToolCall]:
        """Take an item of ``tool_calls``, or a ``function_call``."""
        given, custom = piece.get("function"), piece.get("custom")
        plain = isinstance(custom, dict) and not isinstance(given, dict)
        said = custom if plain else given
        function = said if isinstance(said, dict) else piece  # without the object in between
        id, name = _text(piece.get("id")), _text(function.get("name"))
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
            call.named(name)
        yield from call.take(arguments)

    def rest(self) -> Iterator[ToolCall]:
        """Tell what is held back: the answer is at its end."""
        for call in self._calls:
            yield from call.rest()

    def _find(self, id: str, index: int | None, name: str, arguments: Any) -> Call | None:
        """The call that a piece belongs to; ``None`` where it begins another one."""
        there = None if index is None else self._by_index.get(index)
        if id and id in self._by_id:
            if there is not None and there.id == id:
                return there
            # Some servers give all calls of an answer one id.
            return None if index is not None and there is None and name else self._by_id[id]
        known = there if index is not None else (self._calls[-1] if self._calls else None)
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
        taken = {call.index for call in self._calls}
        if index is None or index in taken:
            index = max(taken, default=-1) + 1
        call = Call(index, plain=plain)
        self._calls.append(call)
        return call


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _index(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value == value:
        return int(value) if abs(value) < 1_000_000_000 else None
    return None
