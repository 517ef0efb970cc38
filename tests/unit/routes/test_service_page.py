from __future__ import annotations

import re
from pathlib import Path

import pytest
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client

import sseflask
from tests.service import service

STATIC = Path(sseflask.__file__).parent / "static"


def test_it_is_there_in_development_and_where_it_is_asked_for() -> None:
    for development, settings, status in (
        (True, {}, 200),
        (False, {}, 404),
        (False, {"SSEFLASK_PAGE": "true"}, 200),
    ):
        with (
            service(development=development, **settings) as app,
            app.test_client().get("/") as response,
        ):
            assert response.status_code == status


def test_nothing_of_it_comes_from_elsewhere() -> None:
    with service(development=True) as app, app.test_client().get("/") as response:
        policy = response.headers["Content-Security-Policy"]
        text = response.data.decode()
    assert policy == (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    addresses = re.findall(r'(?:href|src)="([^"]*)"', text)
    assert addresses == ["data:,", "static/page/page.css", "static/page/page.js"]
    assert "style=" not in text
    assert not re.search(r"\son\w+=", text)


@pytest.mark.parametrize("path", sorted((STATIC / "page").glob("*.js")), ids=lambda path: path.name)
def test_modules_import_what_is_there(path: Path) -> None:
    imports = re.findall(r'^import .* from "([^"]+)";$', path.read_text(), re.MULTILINE)
    assert all((path.parent / each).is_file() for each in imports), imports
    # Below a path that is not the root's an address that begins with a slash leads elsewhere.
    assert not re.search(r"""["'`]/(?!/)[a-z]""", path.read_text())


@pytest.mark.parametrize(
    ("asked", "where"),
    [("/tools/sse", "/tools/sse/"), ("/tools/sse?run=1&x=%C3%A9", "/tools/sse/?run=1&x=%C3%A9")],
)
def test_mounted_below_a_path(asked: str, where: str) -> None:
    """The addresses in the page are relative: without the slash they would lead elsewhere."""
    with service(development=True) as app:
        client = Client(DispatcherMiddleware(app, {"/tools/sse": app}))
        with client.get(asked) as response:
            assert response.status_code == 308
            assert response.headers["Location"] == f"http://localhost{where}"
        for path in ("", "static/page/page.js", "static/sse.js", "sse/v1?count=0"):
            with client.get(f"/tools/sse/{path}") as response:
                assert response.status_code in (200, 204)


def test_a_prefix_that_a_client_claims_counts_for_nothing() -> None:
    with service(development=True, SSEFLASK_TRUSTED_PROXIES="1") as app:
        client = app.test_client()
        headers = {"X-Forwarded-Prefix": "/elsewhere", "X-Script-Name": "/elsewhere"}
        with client.get("/", headers=headers) as claimed, client.get("/") as plain:
            assert claimed.data == plain.data
