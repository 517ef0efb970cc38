"""Flask's contexts for code that goes on after the request has ended, such as a run's generator.

It reads the request, the session and ``g`` as the view left them. What can't reach the client any
more raises at once, with the reason.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from typing import Any, NoReturn

from flask import Request
from flask.sessions import NullSession, SessionMixin
from werkzeug.datastructures import EnvironHeaders, MultiDict

__all__ = ["lasting_request", "lasting_session", "lasting_values", "refusing_functions"]

#: Bytes of a body that is read for the run, if the view has not read it.
_MAX_BODY = 1 << 20

#: What belongs to the request's connection, which serves other requests meanwhile.
_OF_CONNECTION = (
    "wsgi.file_wrapper",
    "wsgi.websocket",
    "werkzeug.",
    "gunicorn.",
    "sseflask.viewers",
)


def _refuse(what: str, instead: str) -> NoReturn:
    raise RuntimeError(
        f"{what} in a run, which goes on when the request's response has been sent: {instead}"
    )


class _GoneBody:
    """In place of the request's body, which nobody can read any more."""

    def __getattr__(self, name: str) -> Any:
        _refuse(
            "the request's body can't be read",
            "read it in the view before (request.get_data())",
        )


class _GoneFiles(MultiDict[str, Any]):
    """In place of uploaded files, which end with the request that they came with."""

    def _refuse(self, *_arguments: object, **_named: object) -> NoReturn:
        _refuse("uploaded files can't be read", "read or save them in the view before")

    __getitem__ = __contains__ = get = getlist = items = lists = values = _refuse


class _RefusingFunctions(list[Any]):
    """In place of what ``after_this_request`` adds to."""

    def append(self, _function: object) -> None:
        _refuse("after_this_request has no effect", "call it in the view")


class _ReadOnlySession(SessionMixin):
    """Before a session's own class: no change of it could be saved."""

    def _refuse(self, *_arguments: object, **_named: object) -> NoReturn:
        _refuse("the session can't be changed", "change it in the view before")

    __setitem__ = __delitem__ = pop = popitem = update = setdefault = clear = __ior__ = _refuse

    def __setattr__(self, name: str, value: object) -> None:
        if name == "modified":
            self._refuse()
        super().__setattr__(name, value)


def refusing_functions() -> list[Any]:
    """For a context's functions that run after the request."""
    return _RefusingFunctions()


def lasting_session(session: SessionMixin) -> SessionMixin:
    """A copy of a session that can't be changed."""
    if isinstance(session, NullSession):
        return session  # refuses by itself, with its own reason
    if isinstance(session, _ReadOnlySession):
        return session  # of a run, which begins another one
    kind: Any = _read_only(type(session))
    lasting: SessionMixin = kind.__new__(kind)
    vars(lasting).update(vars(session))
    if isinstance(session, dict):
        dict.update(lasting, session)
    return lasting


@functools.cache
def _read_only(kind: type[SessionMixin]) -> type[SessionMixin]:
    """A class for each kind, not for each session: a class takes time, and a kilobyte."""
    return type("ReadOnlySession", (_ReadOnlySession, kind), {})


def lasting_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """What a context's ``g`` has, without what the end of the view closes.

    A connection or a file, such as of a database: the run opens its own.
    """
    return {
        name: value
        for name, value in values.items()
        if not (callable(getattr(value, "close", None)) or hasattr(type(value), "__exit__"))
    }


def lasting_request(request: Request) -> Request:
    """A copy of a request that keeps nothing of its connection.

    A small body is read now, unless the view has begun to read it. Blocks for it.
    """
    if isinstance(request.environ["wsgi.input"], _GoneBody):
        return request  # of a run, which begins another one
    length = request.content_length
    if length is None and request.method in ("GET", "HEAD") and not _is_chunked(request):
        length = 0
    if length is not None and length <= _MAX_BODY and not {"stream", "form"} & vars(request).keys():
        request.get_data(cache=True)
    environ = {
        name: value
        for name, value in request.environ.items()
        if not name.startswith(_OF_CONNECTION)
    }
    environ["wsgi.input"] = _GoneBody()
    lasting = copy.copy(request)
    lasting.environ = environ
    lasting.headers = EnvironHeaders(environ)
    vars(lasting).pop("stream", None)
    if vars(lasting).get("files"):
        vars(lasting)["files"] = _GoneFiles()
    return lasting


def _is_chunked(request: Request) -> bool:
    return "Transfer-Encoding" in request.headers
