"""`examples/report.py`: a durable run that `sse.js` begins, loses and finds again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.live.kit.browser import chromium_page
from tests.live.kit.clients import open_stream
from tests.live.kit.connection import fetch
from tests.live.kit.examples import example
from tests.live.kit.proxy import Proxy
from tests.live.kit.runs import run_of
from tests.live.kit.servers import Server
from tests.live.kit.tools import node

expect.set_options(timeout=20_000)
REGIONS = list(range(1, 31))
TOTAL = {"status": "finished", "result": {"total": sum(REGIONS)}}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with example("report", "gunicorn", tmp_path_factory.mktemp("report")) as server:
        yield server


@pytest.fixture
def page() -> Iterator[Page]:
    with chromium_page() as opened:
        complaints: list[str] = []
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        yield opened
        assert complaints == []


def shown(page: Page) -> list[int]:
    """The regions that a page shows."""
    return [int(text) for text in page.locator("li").all_inner_texts()]


def runs(server: Server) -> int:
    """How many reports were begun."""
    return server.log().count('"POST /reports ')


def test_it_is_read_through_cuts(report: Server) -> None:
    """Three connections break; each region comes once, and nothing is begun twice."""
    before = runs(report)
    with Proxy(report.port, cut_after=[0, 1000, 400]) as proxy:
        url = f"http://127.0.0.1:{proxy.port}/reports"
        options = {"method": "POST", "attach": f"{url}/"}
        lines = node("sse.mjs", url, json.dumps(options)).stdout.splitlines()
        assert proxy.broken == 3
    reported: list[list[Any]] = [json.loads(line) for line in lines]
    events = [line for line in reported if line[0] == "event"]
    assert [json.loads(line[3])["region"] for line in events] == REGIONS
    assert reported[-2:] == [["done", TOTAL], ["ended", "done"]]
    ids = [line[1] for line in events]
    assert len({id.partition(".")[0] for id in ids}) == 1
    assert runs(report) - before == 2, "the first answer was lost"


def test_what_is_sent_again_begins_nothing(report: Server) -> None:
    found = set()
    for _ in range(2):
        headers = {"Idempotency-Key": "one-and-the-same"}
        with open_stream(report, "/reports", method="POST", headers=headers) as stream:
            found.add((run_of(stream), stream.next().data))
    ((_, first),) = found
    assert first == '{"region":1}'


def test_a_page_loses_its_connection_and_is_reloaded(report: Server, page: Page) -> None:
    before = runs(report)
    with Proxy(report.port) as proxy:
        page.goto(f"http://127.0.0.1:{proxy.port}/")
        proxy.cut_after = [b'"region":4}', b'"region":8}']
        page.click("#start")
        expect(page.locator("li").nth(9)).to_be_visible()
        assert proxy.broken == 2
        assert shown(page)[:10] == REGIONS[:10]
        page.reload()
        expect(page.locator("#end")).to_have_text(f"Total: {sum(REGIONS)}")
        assert shown(page) == REGIONS
        page.reload()
        expect(page.locator("#end")).to_have_text(f"Total: {sum(REGIONS)}")
        assert shown(page) == REGIONS
    assert runs(report) - before == 1


def test_a_page_stops_it(report: Server, page: Page) -> None:
    page.goto(report.url)
    page.click("#start")
    expect(page.locator("li").nth(2)).to_be_visible()
    page.click("#stop")
    expect(page.locator("#end")).to_have_text("stopped")
    there = shown(page)
    assert there == REGIONS[: len(there)]
    run = page.evaluate("sessionStorage.run")
    again = fetch(report, f"/reports/{run}", method="DELETE")
    assert (again.status, json.loads(again.body)) == (200, {"state": "stopped"})
