"""The page to try the service on."""

from __future__ import annotations

from flask import Blueprint, Response, current_app

__all__ = ["blueprint"]

blueprint = Blueprint("page", __name__)

#: Nothing from elsewhere, no script in the text, no frame around it.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@blueprint.get("/")
def page() -> Response:
    """Everything that the service does, to be seen, beside what is on the wire.

    All its addresses are relative: it works below any path, also where a proxy takes the path away.
    """
    response = current_app.send_static_file("page/index.html")
    response.headers["Content-Security-Policy"] = _POLICY
    return response
