"""The only module that touches Flask's contexts and its dispatch: in Flask 3.0, 3.1 and 3.2.

Flask 3.2 has one context in place of two (an application's and a request's), and hands it to the
methods that take part in dispatch. Flask documents all that is used here but one thing:
`report_to_teardown` replaces a context's ``pop``, because Flask can't be told of an error that it
did not see. If Flask no longer called it, teardown functions would get ``None``.
`tests/unit/test_flask_context.py` goes through all of it, on Flask 3.0 and on the newest.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

from flask import Flask, Request, has_app_context, has_request_context
from flask import globals as flask_globals
from flask.ctx import AppContext

from sseflask.lasting_context import (
    lasting_request,
    lasting_session,
    lasting_values,
    refusing_functions,
)

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

_ONE_CONTEXT = hasattr(AppContext, "from_environ")


def current_app() -> Flask | None:
    """The application whose context is active, or ``None``."""
    return _app_context().app if has_app_context() else None


#: The request itself: each attribute of Flask's proxy costs ten times as much.
current_request: Callable[[], Request] = flask_globals.request._get_current_object  # type: ignore[attr-defined]  # LocalProxy

_app_context: Callable[[], Any] = flask_globals.app_ctx._get_current_object  # type: ignore[attr-defined]  # LocalProxy


def _request_context() -> Any:
    name = "app_ctx" if _ONE_CONTEXT else "request_ctx"
    return getattr(flask_globals, name)._get_current_object()


def _call(method: Callable[..., Any], *arguments: Any) -> Any:
    """Call a method of the application that takes the context in Flask 3.2."""
    return method(_request_context(), *arguments) if _ONE_CONTEXT else method(*arguments)


def view_context() -> Callable[[], AbstractContextManager[object]]:
    """Return a function by which another thread enters the contexts of the current request.

    They are copies: the request and its session are shared. ``g`` begins with what it has now, but
    for what the view's teardown functions close (see `lasting_values`); what it gets later belongs
    to the thread alone. Teardown functions run in the thread too, at the end.
    """
    if not has_request_context():
        return contextlib.nullcontext
    return partial(_copied, _request_context(), lasting_values(vars(_app_context().g)))


def lasting_context(app: Flask) -> Callable[[], AbstractContextManager[object]]:
    """Return a function by which a greenlet or thread enters contexts that outlive the request.

    They are the current request's, as far as they can last, see `sseflask.lasting_context`; and
    otherwise as `view_context`. Without a request it is the application's context alone.
    """
    if not has_request_context():
        return app.app_context
    context = _request_context()
    # To read the public attribute would add a header ``Vary: Cookie`` to the response.
    session = vars(context).get("_session", None)
    session = context.session if session is None else session
    request, session = lasting_request(context.request), lasting_session(session)
    environ = {} if _ONE_CONTEXT else {"environ": request.environ}
    lasting = type(context)(context.app, **environ, request=request, session=session)
    lasting._after_request_functions = refusing_functions()
    return partial(_entered, lasting, lasting_values(vars(_app_context().g)))


@contextlib.contextmanager
def _entered(context: Any, values: dict[str, Any]) -> Iterator[None]:
    with contextlib.nullcontext() if _ONE_CONTEXT else context.app.app_context() as outer:
        vars((context if outer is None else outer).g).update(values)
        with context:
            yield


@contextlib.contextmanager
def _copied(context: Any, values: dict[str, Any]) -> Iterator[None]:
    outer = context.copy() if _ONE_CONTEXT else context.app.app_context()
    vars(outer.g).update(values)
    with outer, contextlib.nullcontext() if _ONE_CONTEXT else context.copy():
        yield


def release_resources() -> None:
    """Run the ``teardown_appcontext`` functions now, as nobody knows how long a stream takes.

    They run again with the end of the context. A database connection that the view has used goes
    back to its pool; what the stream's generator opens afterwards is its own.
    """
    if has_app_context():
        context = _app_context()
        context.app.do_teardown_appcontext(*([context] if _ONE_CONTEXT else []), None)


def report_to_teardown(error: Exception) -> None:
    """Pass an error that Flask did not see to the current request's teardown functions."""
    if not has_request_context():
        return
    context = _request_context()

    def pop(exc: BaseException | None = None) -> None:
        context.__dict__.pop("pop", None)
        context.pop(error if exc is None else exc)

    context.pop = pop


def error_response(
    app: Flask | None, environ: WSGIEnvironment, error: Exception
) -> WSGIApplication:
    """What Flask answers when a view raises this, in the context of the current request.

    Flask calls a response outside its own ``except``, so its handlers are called here.

    Raises:
        Exception: ``error``, if there is no application, or if the application propagates
            exceptions.
    """
    if app is None:
        raise error
    response: WSGIApplication
    with contextlib.nullcontext() if has_request_context() else app.request_context(environ):
        try:
            raise error
        except Exception:
            try:
                response = _call(app.finalize_request, _call(app.handle_user_exception, error))
            except Exception as unhandled:
                report_to_teardown(unhandled)
                response = _call(app.handle_exception, unhandled)
    return response
