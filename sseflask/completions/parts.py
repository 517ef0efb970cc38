"""The parts of a completion: text, reasoning, tool calls, files, sources. No I/O."""

from __future__ import annotations

import mimetypes
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from sseflask.completions.json_values import dict_or_empty, list_or_empty, text_or_empty

#: Types of a content's parts that are pictures.
PICTURES = ("image_url", "image", "output_image", "input_image")
#: Fields of a picture that have its address, or its bytes in base64.
_URLS = ("image_url", "url", "image", "source")
_BYTES = ("b64_json", "data", "base64", "image_base64")


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
    """A piece of a call that the client is to make, and of its arguments' JSON.

    Only the first has the id and the name; the index tells the calls of one completion apart.
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
class Citation:
    """What the text refers to: an address, or a file, which has a name or an id and no URL."""

    url: str
    title: str
    filename: str


Part: TypeAlias = Text | Reasoning | ToolCall | HostedCall | Approval | File | Citation


def well_formed(text: str) -> str:
    """A text whose halves of surrogate pairs are joined; a single half becomes U+FFFD.

    As JavaScript's ``toWellFormed``; UTF-8 can carry it.
    """
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class Attachments:
    """Gives each picture and each source once: some servers repeat them in every chunk."""

    def __init__(self) -> None:
        self._given: set[int] = set()

    def pictures(self, given: Any) -> Iterator[File]:
        """The pictures of a list (OpenRouter's ``images``), or one picture."""
        for each in given if isinstance(given, list) else [given]:
            url = _url(each)
            if url and self._is_new(url):
                yield File(url, _media_type(each, url))

    def sources(self, given: Any) -> Iterator[Citation]:
        """The sources of a list of annotations, or of addresses (Perplexity's ``citations``)."""
        for each in list_or_empty(given):
            source = _source(each)
            if source is not None and self._is_new(source.url or source.filename):
                yield source

    def _is_new(self, url: str) -> bool:
        count = len(self._given)
        self._given.add(hash(url))
        return len(self._given) > count


def _url(given: Any) -> str:
    """The address of a picture, which may be a data URL; empty if it has none."""
    if isinstance(given, dict):
        for name in _URLS:
            if isinstance(given.get(name), (str, dict)):
                return _url(given[name])
        for name in _BYTES:
            if isinstance(given.get(name), str) and given[name]:
                return f"data:{_declared_type(given) or 'image/png'};base64,{given[name]}"
    scheme = given.partition(":")[0].lower() if isinstance(given, str) else ""
    return str(given) if scheme in ("data", "http", "https") else ""


def _declared_type(given: Any) -> str:
    given = dict_or_empty(given)
    kind = given.get("media_type") or given.get("mime_type") or given.get("mediaType")
    return kind if isinstance(kind, str) and "/" in kind else ""


def _media_type(given: Any, url: str) -> str:
    if url[:5].lower() == "data:":
        return url[5:].partition(",")[0].partition(";")[0].lower() or "text/plain"
    try:
        return _declared_type(given) or mimetypes.guess_type(urlsplit(url).path)[0] or "image/png"
    except ValueError:
        return "image/png"


def _source(given: Any) -> Citation | None:
    given = {"url": given} if isinstance(given, str) else dict_or_empty(given)
    given = dict_or_empty(given.get("url_citation")) or given
    url, title, filename = (text_or_empty(given.get(name)) for name in ("url", "title", "filename"))
    if url.partition(":")[0].lower() in ("http", "https"):
        return Citation(url, title, "")
    name = filename or text_or_empty(given.get("file_id"))
    return Citation("", title or name, name) if name else None
