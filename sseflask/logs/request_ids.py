"""Which request something belongs to: the id that its client or a proxy has given it, or a new one.

Imported by gunicorn's arbiter: nothing but the standard library may be imported here.
"""

from __future__ import annotations

import re
import secrets
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["HEADER", "KEY", "current", "enter", "go_on", "is_given", "leave", "make"]

#: The key of the WSGI environment, and the header of requests and responses.
KEY, HEADER = "sseflask.request_id", "X-Request-Id"

#: What is taken over: as UUIDs, ULIDs, numbers in base 64 and most paths of services are written.
#: Several headers are joined by a comma, which is not among these.
_SANE = re.compile(r"[A-Za-z0-9._~:/+=@-]{1,128}\Z", re.ASCII)

_current: ContextVar[str] = ContextVar("sseflask.request_id", default="")


def make() -> str:
    """A new id: 32 hexadecimal digits, as random as a UUID."""
    return secrets.token_hex(16)


def enter(environ: WSGIEnvironment) -> str:
    """Give a request its id, unless it has one; what is logged from here on is of this request.

    Never blocks. Greenlets and threads that it begins are not of it by themselves.

    Args:
        environ: the request's WSGI environment, which has the id from here on.

    Returns:
        the id: the request's ``X-Request-Id``, if it is 1 to 128 letters, digits and ``._~:/+=@-``.
    """
    known: str | None = environ.get(KEY)
    if known is None:
        asked = environ.get("HTTP_X_REQUEST_ID", "")
        known = environ[KEY] = asked if _SANE.match(asked) else make()
    _current.set(known)
    return known


def is_given(environ: WSGIEnvironment) -> bool:
    """Whether the request came with its id."""
    return bool(environ.get(KEY, "") == environ.get("HTTP_X_REQUEST_ID"))


def current() -> str:
    """The id of the request that is being served here, or nothing. Never blocks."""
    return _current.get()


def go_on(id: str) -> None:
    """What is logged from here on is of a request that was entered elsewhere.

    Args:
        id: what `current` was there.
    """
    _current.set(id)


def leave() -> None:
    """What is logged from here on is of no request."""
    _current.set("")
