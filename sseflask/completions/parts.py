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
    """A piece of a call that the client is to make. Only the first has the id and the name.

    Args:
        index: tells the calls of one completion apart.
        arguments: a piece of the arguments' JSON.
    """

    index: int
    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class HostedCall:
    """A call that the upstream itself has made: a search, a call of an MCP server, code that ran.

    The arguments and the output are values of JSON.
    """

    index: int
    id: str
    name: str
    arguments: Any
    output: Any


@dataclass(frozen=True)
class Approval:
    """A request to allow a call that the upstream makes itself (``mcp_approval_request``).

    The id is the request's, the server is named by its label; the arguments are a value of JSON.
    """

    id: str
    name: str
    arguments: Any
    server: str


@dataclass(frozen=True)
class File:
    """A picture, or another file. The URL may be a data URL."""

    url: str
    media_type: str


@dataclass(frozen=True)
class Source:
    """What the text refers to: an address, or a file, which has a name or an id and no URL."""

    url: str
    title: str
    filename: str


Part: TypeAlias = Text | Reasoning | ToolCall | HostedCall | Approval | File | Source


def well_formed(text: str) -> str:
    """A text with halves of surrogate pairs joined, and U+FFFD in place of those without another.

    As JavaScript's ``toWellFormed``; UTF-8 can carry it.
    """
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
