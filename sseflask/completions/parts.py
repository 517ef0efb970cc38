"""The parts of a completion: text, reasoning, tool calls, files, sources. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

__all__ = [
    "Approval",
    "File",
    "HostedCall",
    "Part",
    "Reasoning",
    "Source",
    "Text",
    "ToolCall",
    "text_or_empty",
    "well_formed",
]


@dataclass(frozen=True)
class Text:
    """A piece of the text."""

    text: str


@dataclass(frozen=True)
class Reasoning:
    """A piece of the reasoning."""

    text: str


@dataclass(frozen=True)
class ToolCall:
    """A piece of a call that the client is to make.

    Args:
        index: tells the calls of one completion apart.
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
        index: tells the calls of one completion apart.
        id: the call's id.
        name: the tool's name.
        arguments: a value of JSON.
        output: a value of JSON.
    """

    index: int
    id: str
    name: str
    arguments: Any
    output: Any


@dataclass(frozen=True)
class Approval:
    """A request to allow a call that the upstream makes itself (``mcp_approval_request``).

    Args:
        id: the request's id.
        name: the tool's name.
        arguments: a value of JSON.
        server: the label of the MCP server.
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
    """What the text refers to.

    Args:
        url: an address; empty for a file.
        title: may be empty.
        filename: a file's name or id; empty for an address.
    """

    url: str
    title: str
    filename: str


Part: TypeAlias = Text | Reasoning | ToolCall | HostedCall | Approval | File | Source


def text_or_empty(value: Any) -> str:
    """A value of JSON if it is text; else an empty text."""
    return value if isinstance(value, str) else ""


def well_formed(text: str) -> str:
    """A text with halves of surrogate pairs joined, and U+FFFD in place of those without another.

    As JavaScript's ``toWellFormed``; UTF-8 can carry it.
    """
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
