"""What an answer consists of: text, reasoning, tool calls. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

__all__ = ["HostedCall", "Part", "Reasoning", "Text", "ToolCall"]


@dataclass(frozen=True)
class Text:
    """A piece of what the model says."""

    text: str


@dataclass(frozen=True)
class Reasoning:
    """A piece of what it thinks."""

    text: str


@dataclass(frozen=True)
class ToolCall:
    """A piece of a call that it wants made.

    Args:
        index: tells the calls of one answer apart.
        id: the call's id; empty in all pieces but the first.
        name: the function's name; likewise.
        arguments: a piece of the arguments' JSON.
    """

    index: int
    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class HostedCall:
    """A call that the upstream itself has made: a search, a call of an MCP server, code that ran.

    Args:
        index: tells the calls of one answer apart.
        id: the call's id.
        name: what was called.
        arguments: the arguments as a value of JSON.
        output: what came of it, as the upstream says it.
    """

    index: int
    id: str
    name: str
    arguments: Any
    output: Any


Part: TypeAlias = Text | Reasoning | ToolCall | HostedCall
