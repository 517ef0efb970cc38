from __future__ import annotations

import pytest

from tests.service import service


@pytest.mark.parametrize(("path", "status"), [("/healthz", "ok"), ("/readyz", "ready")])
def test_health(path: str, status: str) -> None:
    with service() as app:
        client = app.test_client()
        answer = client.get(path)
        assert (answer.status_code, answer.json) == (200, {"status": status})
        assert answer.headers["Cache-Control"] == "no-store"
        assert client.head(path).status_code == 200
        assert client.post(path).status_code == 405
