"""What becomes of an error that a generator of the application raises."""

from __future__ import annotations

import logging

from flask import Flask
from flask.signals import got_request_exception
from werkzeug.exceptions import HTTPException
from werkzeug.http import HTTP_STATUS_CODES

from sseflask import flask_context
from sseflask.errors import Failure

log = logging.getLogger("sseflask")


def report(app: Flask | None, path: str, error: Exception) -> Failure:
    """Report an error as Flask reports a view's, and give the failure that the client may see.

    To teardown functions, error reporters (``got_request_exception``) and the log; failures and
    HTTP exceptions are meant for the client, and to teardown functions alone.

    Args:
        app: the application, ``None`` without one.
        path: of the request, for the log.
        error: what a generator has raised.
    """
    flask_context.report_to_teardown(error)
    if isinstance(error, Failure):
        return error
    if isinstance(error, HTTPException):
        # An exception made from a response has no code.
        status = error.code or error.get_response().status_code
        return Failure(
            error.description or HTTP_STATUS_CODES.get(status, error.name),
            status=status,
            type="server_error" if status >= 500 else "invalid_request_error",
        )
    # The signal first, as in Flask: error reporters then ignore the log record as a repetition.
    if app is not None:
        try:
            got_request_exception.send(app, _async_wrapper=app.ensure_sync, exception=error)
        except Exception:
            log.exception("a receiver of got_request_exception failed")
    log.error(
        "Exception in the stream of %r",
        path,
        exc_info=(type(error), error, error.__traceback__),
    )
    return Failure("The stream failed on the server.", code="internal_error")
