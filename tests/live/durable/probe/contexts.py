"""A view whose generator uses Flask's contexts, while the request goes on and after its end."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

from flask import (
    Blueprint,
    after_this_request,
    current_app,
    flash,
    g,
    request,
    session,
    url_for,
)
from flask.typing import ResponseReturnValue

from tests.live.durable.probe.api import parameters
from tests.live.durable.probe.gates import wait_until_allowed
from tests.live.durable.probe.values import FORBIDDEN
from tests.live.kit.notes import mark, tag

blueprint = Blueprint("contexts", __name__)


def the_sse() -> Any:
    return current_app.extensions["sseflask"]


@blueprint.get("/login")
def login() -> ResponseReturnValue:
    session["name"] = request.args["name"]
    return {"name": session["name"]}


@blueprint.get("/session")
def show_session() -> ResponseReturnValue:
    return dict(session)


def _seen() -> dict[str, Any]:
    """What a generator finds in the contexts."""
    return {
        "path": request.path,
        "tag": request.args["tag"],
        "method": request.method,
        "body": request.get_data(as_text=True),
        "header": request.headers.get("X-Probe"),
        "user": g.user,
        "late": g.get("late"),
        "app": current_app.name,
        "endpoint": request.endpoint,
        "session": session.get("name"),
        "url": url_for("hello"),
    }


@blueprint.route("/contexts", methods=["GET", "POST"])
def contexts() -> ResponseReturnValue:
    """The same before and after the request has ended."""
    name = tag()
    request.get_data()
    g.user = "ann"

    def events() -> Iterator[Any]:
        yield _seen()
        wait_until_allowed(name, 1)
        g.late = "set by the generator"
        yield _seen()
        mark(name, "finished")

    response: ResponseReturnValue = the_sse().run(events(), **parameters(request.args))
    return response


@blueprint.route("/nested", methods=["GET", "POST"])
def nested() -> ResponseReturnValue:
    """A run begins another one in its contexts, and that one another."""
    g.user = "ann"
    request.get_data()

    def events(depth: int) -> Generator[Any, None, Any]:
        yield _seen()
        return the_sse().start(events(depth - 1)) if depth else None

    response: ResponseReturnValue = the_sse().run(events(2))
    return response


def _write_key() -> None:
    session["visits"] = 1


def _delete_key() -> None:
    del session["name"]


def _update() -> None:
    session.update(visits=1)


def _pop() -> None:
    session.pop("name")


def _clear() -> None:
    session.clear()


def _set_default() -> None:
    session.setdefault("visits", 1)


def _modified() -> None:
    session.modified = True


def _permanent() -> None:
    session.permanent = True


def _flash() -> None:
    flash("hello")


def _after() -> None:
    @after_this_request
    def change(response: Any) -> Any:
        return response


#: By the names in `FORBIDDEN`.
_TRIED = dict(
    zip(
        FORBIDDEN,
        (
            _write_key,
            _delete_key,
            _update,
            _pop,
            _clear,
            _set_default,
            _modified,
            _permanent,
            _flash,
            _after,
        ),
        strict=True,
    )
)


@blueprint.get("/forbidden/<what>")
def forbidden(what: str) -> ResponseReturnValue:
    """The generator does what it can't; the error is raised where it does it."""
    name, late = tag(), "late" in request.args
    session.get("name")

    def events() -> Iterator[Any]:
        yield "before"
        if late:
            wait_until_allowed(name, 1)
        try:
            _TRIED[what]()
        except Exception as error:
            mark(name, f"raised {type(error).__name__}: {error}")
            yield "raised"
        else:
            mark(name, "did it in silence")
            yield "silence"

    response: ResponseReturnValue = the_sse().run(events(), **parameters(request.args))
    return response


@blueprint.get("/view-writes-session")
def view_writes_session() -> ResponseReturnValue:
    """The view may write it, before and after it has begun the run."""
    name = tag()
    session["before"] = 1

    def events() -> Iterator[Any]:
        yield "first"
        wait_until_allowed(name, 1)
        yield dict(session)

    response: ResponseReturnValue = the_sse().run(events(), **parameters(request.args))
    session["after"] = 2
    return response


class Resource:
    """What a teardown function closes: a connection to a database."""

    def __init__(self, name: str, note: str) -> None:
        self.name, self.note = name, note

    def close(self) -> None:
        mark(self.note, f"closed {self.name}")


def _open(name: str, note: str) -> Resource:
    """As applications do it: opened at the first use, kept in `g`."""
    if "resource" not in g:
        mark(note, f"opened {name}")
        g.resource = Resource(name, note)
    found: Resource = g.resource
    return found


@blueprint.teardown_app_request
def note_teardown(error: BaseException | None) -> None:
    if "tag" in request.args:
        mark(f"{tag()}.teardown", f"request {type(error).__name__}")


def close_resource(error: BaseException | None) -> None:
    """A ``teardown_appcontext`` function."""
    found = g.pop("resource", None)
    if found is not None:
        mark(f"{found.note}.teardown", f"appcontext {type(error).__name__}")
        found.close()


@blueprint.get("/resources")
def resources() -> ResponseReturnValue:
    """The view opens a resource and so does the generator, before and after the view's end."""
    name = tag()
    if "view" in request.args:
        _open("the view's", name)

    def events() -> Iterator[Any]:
        yield "first"
        wait_until_allowed(name, 1)
        found = _open("the generator's", name)
        yield found.name
        wait_until_allowed(name, 2)
        mark(name, f"uses {_open('another', name).name}")
        if "error" in request.args:
            raise ArithmeticError("on purpose")

    response: ResponseReturnValue = the_sse().run(events(), **parameters(request.args))
    return response
