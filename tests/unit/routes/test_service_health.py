from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.service import service


def test_alive() -> None:
    with service() as app:
        client = app.test_client()
        answer = client.get("/healthz")
        assert (answer.status_code, answer.json) == (200, {"status": "ok"})


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_neither_is_stored_or_takes_a_post(path: str) -> None:
    with service(SSEFLASK_CHANNEL_LOG=":memory:") as app:
        client = app.test_client()
        assert client.get(path).headers["Cache-Control"] == "no-store"
        assert client.head(path).status_code == 200
        assert client.post(path).status_code == 405


def test_ready_and_what_becomes_of_history_in_memory() -> None:
    with service(SSEFLASK_CHANNEL_LOG=":memory:") as app:
        answer = app.test_client().get("/readyz").json
        assert answer is not None
        assert answer["status"] == "ready"
        assert answer["channels"]["log"] == "available"
        assert answer["channels"]["history"] == "memory"
        assert "gap" in answer["channels"]["meaning"]
        assert answer["completions"] == {"log": "available"}


@pytest.mark.parametrize(
    ("setting", "what"),
    [("SSEFLASK_CHANNEL_LOG", "channels"), ("SSEFLASK_RUN_LOG", "completions")],
)
def test_ready_though_a_store_is_not_available(tmp_path: Path, setting: str, what: str) -> None:
    in_the_way = tmp_path / "a-file"
    in_the_way.write_text("not a directory")
    settings: Any = {setting: str(in_the_way / "log.sqlite3")}
    with service(**settings) as app:
        answer = app.test_client().get("/readyz")
        assert answer.status_code == 200
        assert answer.json is not None
        assert answer.json[what]["log"] == "unavailable"
        assert str(tmp_path) not in answer.text
