"""Where a client that comes back wants to go on: read in one place, for views and routes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, overload

from flask import Request, request
from werkzeug.datastructures import EnvironHeaders

__all__ = [
    "HEADER",
    "PARAMETER",
    "is_cursor",
    "last_event_id",
    "latest",
    "presented",
    "set_right",
]

HEADER = "Last-Event-ID"
#: The parameter as we spell it. A polyfill of EventSource spells it lastEventId, Mercure
#: lastEventID, and earlier drafts of Mercure Last-Event-ID.
PARAMETER = "last_event_id"

_KEY = "HTTP_LAST_EVENT_ID"
_PLAIN = "lasteventid"

T = TypeVar("T")
D = TypeVar("D")


def is_cursor(name: str) -> bool:
    """Whether a parameter of this name is a cursor: case, ``_`` and ``-`` do not count."""
    # The length first: this is asked of every parameter.
    return len(name) <= 13 and name.replace("_", "").replace("-", "").lower() == _PLAIN


def latest(cursors: Iterable[tuple[str, T]]) -> T | None:
    """Of the cursors in a request's parameters the one that counts.

    A polyfill keeps the URL that the page gave it, maybe with a cursor of ours, and appends its
    own: so another spelling wins over ours, and a later one over an earlier. Empty ones are none.
    """
    ours = theirs = None
    for name, value in cursors:
        if value in (None, ""):
            continue
        if name == PARAMETER:
            ours = value
        else:
            theirs = value
    return ours if theirs is None else theirs


def decode(raw: str) -> str:
    """The text of a header's value as WSGI has it, one letter for each byte (PEP 3333).

    Browsers send UTF-8 (WHATWG HTML, section 9.2.4). What is not UTF-8 is taken as ISO 8859-1,
    which Python's and Node's HTTP clients send.
    """
    if raw.isascii():
        return raw
    try:
        return raw.encode("latin-1").decode()
    except UnicodeError:
        return raw


def presented(environ: Mapping[str, Any]) -> str:
    """The header's text, empty where there is none."""
    return decode(environ.get(_KEY, ""))


def set_right(asked: Request) -> None:
    """Let the view read the header's text from ``request.headers``, which has its bytes.

    Nothing of the WSGI environment is changed: others read it as PEP 3333 has it.
    """
    raw = asked.environ.get(_KEY, "")
    if not raw.isascii():
        asked.headers = EnvironHeaders({**asked.environ, _KEY: decode(raw)})


@overload
def last_event_id() -> str | None: ...
@overload
def last_event_id(*, default: D) -> str | D: ...
@overload
def last_event_id(*, default: D, type: Callable[[str], T]) -> T | D: ...
@overload
def last_event_id(*, type: Callable[[str], T]) -> T | None: ...
def last_event_id(*, default: Any = None, type: Callable[[str], Any] | None = None) -> Any:
    """The id of the last event that the client of the current request has got.

    From the header ``Last-Event-ID``, or from the query: ``last_event_id``, also as polyfills of
    EventSource and Mercure spell it (``lastEventId``, ``lastEventID``). The header wins, as an
    EventSource that reconnects keeps its URL. Letters beyond ASCII are as the event had them.

    Args:
        default: what to give where the client presents none, or one that ``type`` refuses.
        type: converts the id, ``int`` for instance; a `ValueError` means that it does not fit.

    Raises:
        RuntimeError: there is no current request.
    """
    found = presented(request.environ) or latest(
        (name, value) for name, value in request.args.items(multi=True) if is_cursor(name)
    )
    if not found:
        return default
    if type is None:
        return found
    try:
        return type(found)
    except ValueError:
        return default
