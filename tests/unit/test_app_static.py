from __future__ import annotations

from pathlib import Path

import sseflask
from tests.service import service

MODULE = Path(sseflask.__file__).parent / "static" / "sse.js"


def test_the_client_module_is_served_and_small() -> None:
    with service() as app:
        client = app.test_client()
        with client.get("/static/sse.js") as response:
            body = response.data
        etag = {"If-None-Match": response.headers["ETag"]}
        with client.get("/static/sse.js", headers=etag) as again:
            assert again.status_code == 304
        assert client.get("/static/../app.py").status_code == 404
    assert body == MODULE.read_bytes()
    assert response.mimetype == "text/javascript"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cache-Control"] == "no-cache"
    assert len(body) <= 6400
