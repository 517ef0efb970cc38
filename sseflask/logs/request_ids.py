"""The id of a request: from its client or a proxy, or a new one.

It is in a context variable. Our worker sets it below all middleware, and clears it before it waits
for the next request: errors after a response still have it. gevent copies no context variables to
new greenlets, so a run's writer takes the id along.

Imported by gunicorn's arbiter: the standard library alone.
"""

from __future__ import annotations

import os
import re
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

#: The key of the WSGI environment, and the header of requests and responses.
KEY, HEADER = "sseflask.request_id", "X-Request-Id"

#: An id that is accepted: UUIDs, ULIDs, base 64 and most paths of services fit. Several headers are
#: joined by a comma, which does not.
_SANE = re.compile(r"[A-Za-z0-9._~:/+=@-]{1,128}\Z", re.ASCII)

_current: ContextVar[str] = ContextVar("sseflask.request_id", default="")


def make() -> str:
    """A new id: 32 hexadecimal digits, as random as a UUID."""
    return os.urandom(16).hex()  # as `secrets` does, by four functions


def enter(environ: WSGIEnvironment) -> str:
    """Make a request the current one, and give it an id unless it has one. Never blocks.

    Greenlets and threads that the request starts do not inherit it.

    Returns:
        the id, which the environment stores: the request's ``X-Request-Id``, if it is 1 to 128
        letters, digits and ``._~:/+=@-``.
    """
    known: str | None = environ.get(KEY)
    if known is None:
        sent = environ.get("HTTP_X_REQUEST_ID", "")
        known = environ[KEY] = sent if _SANE.match(sent) else make()
    _current.set(known)
    return known


def is_given(environ: WSGIEnvironment) -> bool:
    """Whether the request came with its id."""
    return bool(environ.get(KEY, "") == environ.get("HTTP_X_REQUEST_ID"))


def current() -> str:
    """The id of the current request, or an empty text. Never blocks."""
    return _current.get()


def go_on(id: str) -> None:
    """Make the request with this id the current one, in another greenlet or thread."""
    _current.set(id)


def forget() -> None:
    """Forget the current request: from here on there is none."""
    _current.set("")
