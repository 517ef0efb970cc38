"""``SSE(app)``: the library's front door."""

from __future__ import annotations

from flask import Flask, Response, jsonify

from sseflask.errors import Failure
from sseflask.response import EventSourceResponse, UpgradedResponse

__all__ = ["SSE"]


class SSE:
    """Makes an application's event streams robust without touching its views.

    Every streamed response of the type ``text/event-stream`` without a Content-Length is carried
    by the best transport the server allows, its bytes unchanged; a `Failure` raised in a view
    becomes a JSON error. Keep the instance where you keep other extensions, or drop it.

    Args:
        app: the application; or use `init_app` later, with any number of applications.
    """

    def __init__(self, app: Flask | None = None) -> None:
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Register with an application, before its first request.

        Raises:
            RuntimeError: the application has this extension already.
        """
        if "sseflask" in app.extensions:
            raise RuntimeError("SSE has been registered with this application already")
        app.extensions["sseflask"] = self
        app.after_request(_upgrade)
        app.register_error_handler(Failure, _json_error)


def _upgrade(response: Response) -> Response:
    if (
        response.mimetype == "text/event-stream"
        and response.is_streamed
        and not isinstance(response, EventSourceResponse)
        and "Content-Length" not in response.headers
        and "Content-Encoding" not in response.headers
    ):
        return UpgradedResponse.force_type(response)  # type: ignore[return-value]  # it is one now
    return response


def _json_error(failure: Failure) -> Response:
    response = jsonify(failure.body())
    response.status_code = failure.status
    response.headers.update(failure.headers)
    return response
