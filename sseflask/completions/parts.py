"""What an answer consists of: text, reasoning, tool calls, files, sources. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

__all__ = ["Approval", "File", "HostedCall", "Part", "Reasoning", "Source", "Text", "ToolCall"]


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


@dataclass(frozen=True)
class Approval:
    """A call that the upstream makes itself, once it is allowed to (``mcp_approval_request``).

    Args:
        id: names the request in the answer to it.
        name: what is to be called.
        arguments: the arguments as a value of JSON.
        server: the label of the server that has it.
    """

    id: str
    name: str
    arguments: Any
    server: str


@dataclass(frozen=True)
class File:
    """A picture, or another file.

    Args:
        url: a data URL, or an address.
        media_type: such as ``image/png``.
    """

    url: str
    media_type: str


@dataclass(frozen=True)
class Source:
    """What the answer refers to.

    Args:
        url: its address; empty for a file.
        title: its title, perhaps empty.
        filename: a file's name or id; empty for an address.
    """

    url: str
    title: str
    filename: str


Part: TypeAlias = Text | Reasoning | ToolCall | HostedCall | Approval | File | Source
