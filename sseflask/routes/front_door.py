"""GET of one channel, answered before Flask's dispatch.

After a deploy all subscribers come at once, and Flask's contexts, routing and hooks are half of
what one of them costs. The door knows the request that an EventSource sends: a channel or a
pattern, a token or none, an id or none. It decides by what the route decides by. All else, every
refusal too, is Flask's: what the door does not answer has not been touched.

`tests/unit/routes/test_front_door.py` compares its answers with those of the route.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from flask import (
    Flask,
    appcontext_popped,
    appcontext_pushed,
    appcontext_tearing_down,
    request_finished,
    request_started,
    request_tearing_down,
)

from sseflask.auth.access import Access
from sseflask.auth.presented import NAME, bearer_token
from sseflask.defaults import setting
from sseflask.errors import ChannelError
from sseflask.extension import channels_of
from sseflask.response import EventSourceResponse
from sseflask.routes import response_headers
from sseflask.store.api import StoreError
from sseflask.store.names import Pattern
from sseflask.transport.gunicorn.server_response import KEY
from sseflask.web.refusals import is_event_source

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_PATH = "/channels/"

#: A query with a token alone, which needs no decoding, and a host that Werkzeug has no doubts of.
_TOKEN = re.compile(r"access_token=([A-Za-z0-9._~-]+)\Z")
_HOST = re.compile(r"[A-Za-z0-9.-]+(?::[0-9]{1,5})?\Z")

#: Headers that say something of a body, or of another protocol.
_OTHERS = ("CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING", "HTTP_UPGRADE")

#: What may be connected to Flask's requests and contexts from elsewhere.
_SIGNALS = (
    *(request_started, request_finished, request_tearing_down),
    *(appcontext_pushed, appcontext_popped, appcontext_tearing_down),
)


class FrontDoor:
    """The service's WSGI application, to be made when the application is complete.

    If hooks or routes are added to it afterwards, all requests are Flask's; a route may be one of a
    channel's path.
    """

    def __init__(self, app: Flask, access: Access) -> None:
        self._app = app
        self._flask: WSGIApplication = app.wsgi_app
        self._access = access
        self._channels = channels_of(app)
        self._additions = _number_of_additions(app)
        self._is_open: bool | None = None

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path: str = environ.get("PATH_INFO", "")
        if path.startswith(_PATH) and environ["REQUEST_METHOD"] == "GET" and environ.get(KEY):
            response = self._answer(path[len(_PATH) :], environ)
            if response is not None:
                return response(environ, start_response)
        return self._flask(environ, start_response)

    def _answer(self, name: str, environ: WSGIEnvironment) -> EventSourceResponse | None:
        """The response, or ``None`` for whatever is Flask's."""
        if self._is_open is None:  # as with Flask: nothing is added after the first request
            self._is_open = _number_of_additions(self._app) == self._additions
        query: str = environ.get("QUERY_STRING", "")
        in_query = _TOKEN.match(query) if query else None
        cursor: str | None = environ.get("HTTP_LAST_EVENT_ID") or None
        if (
            not self._is_open
            or self._app.config.get("TRUSTED_HOSTS")
            or [signal for signal in _SIGNALS if signal.receivers]
            or [header for header in _OTHERS if header in environ]
            or (query and in_query is None)
            or NAME in environ.get("HTTP_COOKIE", "")
            or not _HOST.match(environ.get("HTTP_HOST", ""))
            or not (cursor is None or cursor.isascii())
        ):
            return None
        token = in_query and in_query[1]
        authorization: str | None = environ.get("HTTP_AUTHORIZATION")
        if authorization is not None:
            token = None if token else bearer_token(authorization)
            if not token:
                return None
        try:
            patterns = [Pattern.parse(name)]
            caller = self._access.subscriber(token, patterns)
            if caller is None:
                return None
            subscription = self._channels.subscribe(
                patterns,
                cursor,
                announce=is_event_source(environ),
                retry_jitter=setting(self._app.config, "SSEFLASK_RETRY_JITTER"),
            )
        except (ChannelError, StoreError):
            return None
        response = EventSourceResponse(subscription, first_byte=0, expires_at=caller.expires)
        response.app = self._app
        if cursor is None:
            response.headers.add("Last-Event-ID", str(subscription.start))
        return response_headers.complete_stream(response, environ, in_query is not None)


def _number_of_additions(app: Flask) -> int:
    """How many hooks and routes there are."""
    kinds = (
        *(app.before_request_funcs, app.after_request_funcs, app.teardown_request_funcs),
        *(app.url_value_preprocessors, app.error_handler_spec),
    )
    hooks = sum(len(functions) for kind in kinds for functions in kind.values())
    return hooks + len(app.teardown_appcontext_funcs) + len([*app.url_map.iter_rules()])
