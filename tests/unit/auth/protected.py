"""A tiny app with the protected routes that the service will have, and tokens for it."""

from __future__ import annotations

import json
import time
from typing import Any

import jwt
from flask import Flask, request
from werkzeug.test import TestResponse

from sseflask.auth.access import Access, require_complete, require_publish, require_subscribe
from sseflask.auth.tokens import Caller
from sseflask.extension import SSE
from sseflask.store.names import Pattern
from sseflask.web import refusals
from tests.service import SECRET

#: Where no loopback trust can be in play.
REMOTE = {"REMOTE_ADDR": "192.0.2.7", "HTTP_HOST": "stream.example.org"}
COOKIE = "sseflask_session"
OWN = {"Sec-Fetch-Site": "same-origin"}
OTHER = {"Sec-Fetch-Site": "cross-site", "Origin": "https://example.org"}


def patterns(*texts: str) -> tuple[Pattern, ...]:
    return tuple(Pattern.parse(text) for text in texts)


def make_app(*secrets: str, development: bool = False, public: tuple[str, ...] = ()) -> Flask:
    app = Flask("protected")
    refusals.install(app)
    SSE(app)
    access = Access(secrets, development=development, public=patterns(*public))
    access.init_app(app)

    def shown(caller: Caller) -> dict[str, Any]:
        return {"subject": caller.subject, "expires": caller.expires}

    @app.route("/", methods=["GET", "POST"])
    def protected() -> dict[str, Any]:
        return shown(require_complete())

    @app.post("/channels/<name>")
    def publish(name: str) -> dict[str, Any]:
        return shown(require_publish(name))

    @app.get("/channels")
    def subscribe() -> dict[str, Any]:
        return shown(require_subscribe(patterns(*request.args.getlist("c"))))

    return app


def token(secret: str = SECRET, **claims: object) -> str:
    """A valid token with the right ``complete``, with these changes."""
    known = {"sub": "alice", "exp": int(time.time()) + 3600, "complete": True}
    return jwt.encode({**known, **claims}, secret, algorithm="HS256")


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def refused(response: TestResponse, status: int, code: str) -> dict[str, Any]:
    """The error, which must be this one."""
    assert response.status_code == status
    error: dict[str, Any] = json.loads(response.data)["error"]
    assert error["code"] == code
    return error
