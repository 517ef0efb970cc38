"""The page to try the service on."""

from __future__ import annotations

from flask import Blueprint, Response, current_app

blueprint = Blueprint("page", __name__)

#: Nothing from other origins, no inline script, no frame around the page.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@blueprint.get("/")
def page() -> Response:
    """The features of the service, each with the frames on the wire.

    All its addresses are relative: it works below any path, also if a proxy removes the path.
    """
    response = current_app.send_static_file("page/index.html")
    response.headers["Content-Security-Policy"] = _POLICY
    return response
