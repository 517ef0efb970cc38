"""The figures in Prometheus' formats, as its own parsers read them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from sseflask import SSE
from sseflask.counters.counts import COUNTS
from sseflask.extension import channels_of
from sseflask.metrics.collector import FiguresCollector
from tests.service import LOCAL, SECRET, service
from tests.unit.auth.protected import REMOTE, bearer, refused, token


@pytest.fixture(scope="module")
def app() -> Iterator[Flask]:
    with service(development=True, SSEFLASK_SECRET=SECRET) as made:
        yield made


def values(app: Flask) -> dict[str, float]:
    """By name and labels, as in Prometheus' own format."""
    text = app.test_client().get("/metrics", environ_overrides=LOCAL).text
    return {
        sample.name + "".join(f" {name}={value}" for name, value in sample.labels.items()): (
            sample.value
        )
        for family in prometheus(text)
        for sample in family.samples
    }


def test_every_figure_is_there(app: Flask) -> None:
    found = values(app)
    for name in (
        "sseflask_streams_open kind=stream",
        "sseflask_streams_ended_total kind=channel reason=slow",
        "sseflask_events_delivered_total kind=run",
        "sseflask_bytes_delivered_total kind=stream",
        "sseflask_replays_total kind=channel",
        "sseflask_gaps_total reason=trimmed",
        "sseflask_events_published_total",
        "sseflask_publish_seconds_bucket le=+Inf",
        "sseflask_delivery_seconds_bucket le=0.001",
        "sseflask_first_token_seconds_sum",
        "sseflask_runs_running",
        "sseflask_runs_ended_total outcome=interrupted",
        "sseflask_workers",
        "sseflask_worker_hub_lag_events worker=0",
        "sseflask_worker_loop_lag_seconds worker=0",
        "sseflask_worker_connections_limit worker=0",
    ):
        assert name in found, name
    assert found["sseflask_workers"] == 1
    assert found["sseflask_worker_memory_bytes worker=0"] > 10 << 20
    assert found["sseflask_worker_cpu_seconds_total worker=0"] > 0
    for log in ("channels", "runs"):
        assert found[f"sseflask_log_available log={log}"] == 1
        assert found[f"sseflask_log_read_only log={log}"] == 0
        assert found[f"sseflask_log_bytes log={log}"] > 0


def test_the_document_has_the_same_figures(app: Flask) -> None:
    text = (Path(__file__).parents[3] / "docs" / "deploy.md").read_text(encoding="utf-8")
    table = text.partition("| figure (`sseflask_...`) |")[2].partition("\n\n")[0]
    cells = [row.split("|")[1] for row in table.splitlines()[2:]]
    documented = [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]
    given = [
        family.name.removeprefix("sseflask_") + ("_total" if family.type == "counter" else "")
        for family in FiguresCollector(app).collect()
    ]
    assert sorted(documented) == sorted(given)


def test_counts_are_those_of_the_process(app: Flask) -> None:
    before = values(app)
    COUNTS.streams["channel"].ended["slow"] += 3
    COUNTS.publish.add(0.003, 2)
    COUNTS.publish.add(60.0)
    after = values(app)

    def grown(name: str) -> float:
        return after[name] - before[name]

    assert grown("sseflask_streams_ended_total kind=channel reason=slow") == 3
    assert grown("sseflask_publish_seconds_bucket le=0.0025") == 0
    assert grown("sseflask_publish_seconds_bucket le=0.005") == 2
    assert grown("sseflask_publish_seconds_bucket le=10.0") == 2
    assert grown("sseflask_publish_seconds_bucket le=+Inf") == 3
    assert grown("sseflask_publish_seconds_count") == 3
    assert grown("sseflask_publish_seconds_sum") == pytest.approx(60.006)


def test_what_is_published_is_in_the_log(app: Flask) -> None:
    before = values(app)
    headers = bearer(token(publish=["**"]))
    client = app.test_client()
    assert client.post("/channels/x", data="x" * 100_000, headers=headers).status_code == 201
    after = values(app)
    assert after["sseflask_events_published_total"] == before["sseflask_events_published_total"] + 1
    grown = after["sseflask_log_bytes log=channels"] - before["sseflask_log_bytes log=channels"]
    assert 90_000 < grown < 200_000, "it takes whole pages, of which some were half empty"
    assert 0 <= after["sseflask_log_oldest_seconds log=channels"] < 60


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text;version=1.0.0;q=0.2,text/plain;version=0.0.4", "text/plain"),
        ("application/openmetrics-text; version=1.0.0,text/plain;q=0.5", "application/openmetrics"),
        ("application/openmetrics-text; version=1.0.0;q=0.2,text/plain;q=0.5", "text/plain"),
        ("application/openmetrics-text; version=\u00e9", "application/openmetrics"),
    ],
)
def test_the_format_is_the_one_that_is_preferred(app: Flask, accept: str, kind: str) -> None:
    headers = {"Accept": accept} if accept else {}
    response = app.test_client().get("/metrics", headers=headers, environ_overrides=LOCAL)
    assert response.content_type.startswith(kind)
    assert response.headers["Cache-Control"] == "no-store"
    read = openmetrics if "openmetrics" in kind else prometheus
    assert "sseflask_streams_open" in [family.name for family in read(response.text)]


def test_head(app: Flask) -> None:
    response = app.test_client().head("/metrics", environ_overrides=LOCAL)
    assert (response.status_code, response.data) == (200, b"")


@pytest.mark.parametrize(
    "overrides",
    [
        REMOTE,
        {**LOCAL, "HTTP_HOST": "chat.example.org"},
        {**LOCAL, "HTTP_X_FORWARDED_FOR": "203.0.113.7"},
        {**LOCAL, "HTTP_VIA": "1.1 somebody"},
    ],
)
def test_whoever_is_not_this_machine_needs_a_token(app: Flask, overrides: dict[str, str]) -> None:
    client = app.test_client()
    refused(client.get("/metrics", environ_overrides=overrides), 401, "token_missing")
    weak = bearer(token(complete=True, subscribe=["orders.**"]))
    refused(client.get("/metrics", headers=weak, environ_overrides=overrides), 403, "right_missing")
    strong = bearer(token(subscribe=["sseflask.live"]))
    response = client.get("/metrics", headers=strong, environ_overrides=overrides)
    assert response.status_code == 200


def test_in_production_everybody_needs_one_even_if_all_channels_are_public() -> None:
    with service(SSEFLASK_SECRET=SECRET, SSEFLASK_PUBLIC_CHANNELS="**") as production:
        client = production.test_client()
        refused(client.get("/metrics", environ_overrides=LOCAL), 401, "token_missing")
        any_token = bearer(token())
        response = client.get("/metrics", headers=any_token, environ_overrides=LOCAL)
        refused(response, 403, "right_missing")
        strong = bearer(token(subscribe="**"))
        assert client.get("/metrics", headers=strong, environ_overrides=LOCAL).status_code == 200


def test_another_site_s_page_on_this_machine_is_refused(app: Flask) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
    response = app.test_client().get("/metrics", headers=headers, environ_overrides=LOCAL)
    assert response.status_code == 403


def test_an_application_s_own_registry_has_them() -> None:
    app = Flask(__name__)
    app.testing = True
    SSE(app)
    registry = CollectorRegistry()
    registry.register(FiguresCollector(app))
    text = generate_latest(registry).decode()
    assert 'sseflask_log_available{log="channels"} 1.0' in text
    assert 'log="runs"' not in text, "it has had no runs"
    channels_of(app).close()
