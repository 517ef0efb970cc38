"""The message of an upstream's error, in whatever shape it comes. No I/O.

OpenAI's shape and its imitations, FastAPI's and pydantic's lists of errors, RFC 9457's problems,
gateways' faults, pages of proxies, plain text, nothing at all.
"""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

from sseflask.completions.frame_splitter import fields, read_json
from sseflask.completions.json_values import dict_or_empty

#: Characters of a reason; clients and the log get fewer.
_MAX_REASON = 16_384
#: Characters of an excerpt, and of a page that is searched for one: its title comes early.
_EXCERPT, _PAGE = 300, 8_192
_DEPTH, _ITEMS = 8, 5

#: Fields of an error that has no ``error`` around it.
_MESSAGES = ("detail", "errors", "message", "msg", "error_msg", "error_message", "fault")

# Fields with a reason, in lower case, without dashes and underscores; the most telling ones first.
_NAMES = (
    "message", "msg", "errormessage", "errormsg", "errordescription", "detail", "details", "error",
    "errors", "description", "faultstring", "fault", "reason", "cause", "statusmsg", "baseresp",
    "exception", "title", "text", "response", "body",
)  # fmt: skip
_CHARSET = re.compile(rb"charset=[\"' ]?([A-Za-z0-9_.:-]{1,40})")
_SPACES = re.compile(r"\s+")


def is_error(value: Any) -> bool:
    """Whether a value of JSON that is no completion is an error, in any of the known shapes."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        return bool(value[0].get("error"))
    value = dict_or_empty(value)
    if value.get("error") or value.get("object") == "error" or value.get("type") == "error":
        return True
    if "usage" in value or "object" in value:
        return False
    return any(name in value for name in _MESSAGES) and bool(reason(value))


def reason(value: Any) -> str:
    """The reason in a value of JSON; empty if nothing in it looks like one."""
    return _reason(value, _DEPTH).strip()[:_MAX_REASON]


def _reason(value: Any, depth: int) -> str:
    if isinstance(value, str):
        return value[:_MAX_REASON]
    if depth == 0:
        return ""
    if isinstance(value, list):
        reasons = (_reason(each, depth - 1) for each in value[:_ITEMS])
        return "; ".join(text for text in reasons if text.strip())
    if not isinstance(value, dict):
        return ""
    named = {
        name[:40].replace("_", "").replace("-", "").lower(): inner
        for name, inner in list(value.items())[:100]
    }
    found = next((text for name in _NAMES if (text := _reason(named.get(name), depth - 1))), "")
    place = named.get("loc")
    if found and isinstance(place, list) and place:
        return f"{'.'.join(str(each)[:40] for each in place[:10])}: {found}"
    title = named.get("title")
    if found and found == named.get("detail") and isinstance(title, str) and title:
        return f"{title[:_EXCERPT]}: {found}"
    return found


def text_of(content: bytes, content_type: str = "") -> str:
    """The text of a body, by its declared charset or what it looks like. Never fails."""
    declared = _CHARSET.search(content_type.encode(errors="replace"))
    if declared is None and content.lstrip()[:1] == b"<":
        declared = _CHARSET.search(content[:1024])
    names = [declared[1].decode()] if declared else []
    for name in (*names, json.detect_encoding(content), "cp1252"):
        try:
            return content.decode(name).removeprefix("\ufeff")
        except (UnicodeError, LookupError):
            continue
    return content.decode(errors="replace")


def value_of(text: str) -> Any:
    """The JSON value of a text, or of the first event of a stream; ``None`` if it is none."""
    if text.lstrip().startswith(("data:", "event:")):
        first = re.split(r"\r?\n\r?\n|\r\r", text.lstrip(), maxsplit=1)[0]
        text = (fields(first.encode(errors="replace"))[1] or b"").decode()
    try:
        return read_json(text.encode(errors="replace"))
    except ValueError:
        return None


def excerpt(text: str) -> str:
    """The beginning of a text; of a page its title, or else its text."""
    text = text[:_PAGE]
    if text.lstrip()[:1] == "<":
        page = _Page()
        page.feed(text)
        text = page.title or page.text
    text = _SPACES.sub(" ", text).strip()
    return text if len(text) <= _EXCERPT else f"{text[:_EXCERPT]}..."


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.title = self.text = ""
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002  # the parser's
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002  # the parser's
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "title":
            self.title += data
        elif self._inside not in ("style", "script"):
            self.text += f" {data}"
