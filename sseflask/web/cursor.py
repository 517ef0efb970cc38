"""The cursor of a client that resumes: after which event its stream goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar, overload

from flask import Request
from werkzeug.datastructures import EnvironHeaders

from sseflask.flask_context import current_request

HEADER = "Last-Event-ID"
#: Our spelling of the parameter. A polyfill of EventSource spells it lastEventId, Mercure
#: lastEventID, and earlier drafts of Mercure Last-Event-ID.
PARAMETER = "last_event_id"

_KEY = "HTTP_LAST_EVENT_ID"
_NORMALIZED = "lasteventid"

T = TypeVar("T")
D = TypeVar("D")


def is_cursor(name: str) -> bool:
    """Whether a parameter of this name is a cursor: case, ``_`` and ``-`` do not count."""
    # The length first: this runs for every parameter.
    return len(name) <= 13 and name.replace("_", "").replace("-", "").lower() == _NORMALIZED


def latest(cursors: Iterable[tuple[str, T]]) -> T | None:
    """The cursor that counts, of those in a request's parameters.

    A polyfill appends its cursor to the page's URL, which may have a cursor in our spelling. So
    another spelling wins over ours, and a later one over an earlier one. Empty values do not count.
    """
    ours = others = None
    for name, value in cursors:
        if value in (None, ""):
            continue
        if name == PARAMETER:
            ours = value
        else:
            others = value
    return ours if others is None else others


def _decode(raw: str) -> str:
    """The text of a header's value, which WSGI gives as one letter for each byte (PEP 3333).

    Browsers send UTF-8 (WHATWG HTML, section 9.2.4). Anything else is read as ISO 8859-1, which
    Python's and Node's HTTP clients send.
    """
    if raw.isascii():
        return raw
    try:
        return raw.encode("latin-1").decode()
    except UnicodeError:
        return raw


def decode_header(request: Request) -> None:
    """Let the view read the cursor's text, not its bytes, from ``request.headers``.

    The WSGI environment is not changed: others read it by PEP 3333.
    """
    raw = request.environ.get(_KEY, "")
    if not raw.isascii():
        request.headers = EnvironHeaders({**request.environ, _KEY: _decode(raw)})


def requested_cursor(query: str | None) -> tuple[str, str] | None:
    """The cursor of the current request, and the name of the header or parameter that has it.

    The ``Last-Event-ID`` header wins over the parameter of the query, as an EventSource that
    reconnects keeps its URL and adds the header. An empty cursor counts as none.
    """
    header = _decode(current_request().environ.get(_KEY, ""))
    if header:
        return header, HEADER
    return (query, PARAMETER) if query else None


def cursor_of(request: Request) -> str | None:
    """The cursor of a request: its header's, or else its query's. An empty one counts as none."""
    return _decode(request.environ.get(_KEY, "")) or queried_cursor(request) or None


def queried_cursor(request: Request) -> str | None:
    """The cursor in a request's query, in any of its spellings."""
    if not request.environ.get("QUERY_STRING"):
        return None
    return latest(
        (name, value) for name, value in request.args.items(multi=True) if is_cursor(name)
    )


@overload
def last_event_id() -> str | None: ...
@overload
def last_event_id(*, default: D) -> str | D: ...
@overload
def last_event_id(*, default: D, type: Callable[[str], T]) -> T | D: ...
@overload
def last_event_id(*, type: Callable[[str], T]) -> T | None: ...
def last_event_id(*, default: Any = None, type: Callable[[str], Any] | None = None) -> Any:
    """The id of the last event that the client of the current request has received.

    From the header ``Last-Event-ID``, or from the query: ``last_event_id``, also as polyfills of
    EventSource and Mercure spell it (``lastEventId``, ``lastEventID``). The header wins, as an
    EventSource that reconnects keeps its URL. Letters beyond ASCII are decoded.

    Args:
        default: the result if the client presents no id, or one that ``type`` refuses.
        type: converts the id, ``int`` for instance; a `ValueError` means that it does not fit.

    Raises:
        RuntimeError: there is no current request.
    """
    found = cursor_of(current_request())
    if found is None:
        return default
    if type is None:
        return found
    try:
        return type(found)
    except ValueError:
        return default
