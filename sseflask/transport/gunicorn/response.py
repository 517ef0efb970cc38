"""How a stream finds gunicorn's response, whatever middleware wraps ``start_response``.

The worker puts it into the WSGI environment, below all middleware. Imported by gunicorn's arbiter:
nothing but the standard library, and what needs no more, may be imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import FunctionType
from typing import TYPE_CHECKING, Any

from sseflask.logs import request_ids

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from sseflask.transport.detached.subscriber import Subscriber

__all__ = ["KEY", "ServerResponse", "handing_over"]

#: The key of the environment. A middleware that changes the body of event streams without any sign
#: of it in the headers sets it to ``None``: then all pieces pass through the middleware.
KEY = "sseflask.server_response"


Detach = Callable[["Subscriber", bool], bool]
"""Takes a subscriber over, if that can be; with whether gunicorn will log the request by itself."""


class ServerResponse:
    """One response of gunicorn, and what the worker can do for it.

    Attributes:
        response: gunicorn's own.
        detached: a subscriber has taken its socket away, and needs the greenlet no longer.
        returned: the application has returned, and calls what it wraps only when its body is read.
    """

    __slots__ = ("_detach", "detached", "response", "returned")

    def __init__(self, response: Any, detach: Detach | None = None) -> None:
        self.response = response
        self._detach = detach
        self.detached = False
        self.returned = False

    @property
    def leave(self) -> Callable[[Subscriber], bool] | None:
        """Has a subscriber go on without its greenlet, and says whether it does; ``None`` on
        workers that have no such streams."""
        return None if self._detach is None else self._leave

    def _leave(self, subscriber: Subscriber) -> bool:
        assert self._detach is not None
        self.detached = self._detach(subscriber, self.returned)
        return self.detached


def handing_over(application: Any, detach: Detach | None = None) -> Any:
    """The WSGI application as a gunicorn worker is to call it.

    Args:
        application: with all its middleware.
        detach: the worker's, which takes a subscriber over; ``None`` where it can't.

    Raises:
        StopIteration: by the wrapped application, once a stream has been detached: gunicorn then
            forgets the connection.
    """

    if isinstance(type(application).__call__, FunctionType):
        # As Flask's. Python calls a method without C's stack, which is kept for every stream.
        application = application.__call__

    def wsgi(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        handed = ServerResponse(getattr(start_response, "__self__", None), detach)
        environ[KEY] = handed
        request_ids.enter(environ)
        body: Iterable[bytes] = application(environ, start_response)
        handed.returned = True
        if handed.detached:
            # What middleware does at a response's end is done with the request: no greenlet is
            # left to do it later. Some does it when it has read the body, which is empty.
            try:
                for _ in body:
                    pass
            finally:
                if hasattr(body, "close"):
                    body.close()
            raise StopIteration
        return body

    return wsgi
