"""The service as a platform starts it, and clients that nobody knows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.conftest import tool
from tests.live.connection import fetch
from tests.live.fronts import FRONTS, front
from tests.live.servers import Server
from tests.live.services import SECRET, make_token, production


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"SSEFLASK_SECRET": SECRET, "SSEFLASK_PUBLIC_CHANNELS": "lobby"}
    with production(tmp_path_factory.mktemp("strangers"), settings) as server:
        yield server


@pytest.mark.parametrize("name", FRONTS)
def test_no_header_leads_past_what_a_proxy_forbids(
    guarded: Server, name: str, tmp_path: Path
) -> None:
    """gunicorn believes SCRIPT_NAME and PATH_INFO headers of whoever comes from 127.0.0.1."""
    with front(tool(name), guarded, tmp_path) as proxy:
        assert fetch(guarded, "/v1/models").status == 200  # past the proxy it is there
        assert fetch(proxy, "/v1/models").status == 403
        for header in ("SCRIPT_NAME", "SCRIPT-NAME", "Script_Name", "X-Forwarded-Prefix"):
            assert fetch(proxy, "/zz/v1/models", headers={header: "/zz"}).status == 404, header
        for header in ("PATH_INFO", "PATH-INFO", "RAW_URI", "X-Original-URL", "X-Rewrite-URL"):
            headers = {header: "/v1/models"}
            assert b"data" not in fetch(proxy, "/healthz", headers=headers).body, header


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Protocol", "ssl"),
        ("X-Forwarded-Ssl", "on"),
        ("X_Forwarded_Proto", "https"),
        ("Forwarded", "proto=https"),
    ],
)
def test_no_header_makes_a_scheme(guarded: Server, header: str, value: str) -> None:
    """The cookie says what scheme the service takes the request for; no proxy is trusted here."""
    token = make_token()
    headers = {"Authorization": f"Bearer {token}", "Connection": "close", header: value}
    answer = fetch(guarded, "/session", method="POST", headers=headers, body=b"")
    assert answer.status == 204
    assert "secure" not in answer.headers["set-cookie"].lower()
