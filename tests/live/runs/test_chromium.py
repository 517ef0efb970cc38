"""Chromium reads a run with EventSource: page reloaded, connection cut, worker killed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psutil
import pytest

from tests.live.kit.aimock import Aimock
from tests.live.kit.browser import chromium
from tests.live.kit.proxy import Proxy
from tests.live.kit.runs import attach, read, run_service
from tests.live.kit.servers import Server
from tests.live.kit.waiting import until
from tests.live.kit.workers import connected_to

#: The service, with a page that reads a run.
APPLICATION = "tests.live.runs.page_app:app"


@pytest.fixture(scope="module")
def paged(tmp_path_factory: pytest.TempPathFactory, upstream: Aimock) -> Iterator[Server]:
    """A service that has the page."""
    directory, settings = tmp_path_factory.mktemp("paged"), {"SSEFLASK_HEARTBEAT": "0.5"}
    with run_service(directory, upstream, settings=settings, application=APPLICATION) as server:
        yield server


def report(relay: Server, tag: str) -> dict[str, Any]:
    """What the page says when its EventSource has been closed by a 204."""

    def reported() -> list[str]:
        return [mark for mark in relay.marks(tag) if "loads" in json.loads(mark)]

    (last,) = until(reported, "the page's report", seconds=60)
    answer: dict[str, Any] = json.loads(last)
    return answer


def run_in(relay: Server, tag: str) -> str:
    """The page's run, which it tells when its first piece of text has come."""
    first = until(lambda: relay.marks(tag), "the page's first text", seconds=60)[0]
    return str(json.loads(first)["run"])


def address(port: int, tag: str, message: str, **options: str) -> str:
    query = urlencode({"tag": tag, "message": message, **options})
    return f"http://127.0.0.1:{port}/page?{query}"


def test_reloaded_in_mid_answer(paged: Server, upstream: Aimock, tmp_path: Path, tag: str) -> None:
    """Twice; each time it goes on from the id that it has stored."""
    message = f"paced story #{tag}"
    page = address(paged.port, tag, message, reload="15", times="2")
    with chromium(tmp_path, page):
        answer = report(paged, tag)
    assert answer["loads"] == 3
    assert answer["text"] == upstream.story * 4
    assert answer["ends"] == [["done", {"finish_reason": "stop"}]]
    assert len(set(answer["ids"])) == len(answer["ids"])
    assert upstream.asked_for(message) == 1
    with attach(paged, run_in(paged, tag), "text") as stream:
        assert [event.id for event in read(stream, "text").events] == answer["ids"]


def test_cut_before_the_first_token(
    paged: Server, upstream: Aimock, tmp_path: Path, tag: str
) -> None:
    """It has its run's id from the very first block, so not even then is the run begun anew."""
    message = f"a little late #{tag}"
    with Proxy(paged.port, cut_after=[b".0\n\n"]) as proxy:
        with chromium(tmp_path, address(proxy.port, tag, message)):
            answer = report(paged, tag)
        assert proxy.broken == 1
    assert answer["text"] == upstream.story
    assert answer["ends"] == [["done", {"finish_reason": "stop"}]]
    assert (answer["loads"], answer["opened"]) == (1, 2)
    assert upstream.asked_for(message) == 1


def test_cut_in_mid_answer(paged: Server, upstream: Aimock, tmp_path: Path, tag: str) -> None:
    """It comes back by itself."""
    message = f"steady story #{tag}"
    with Proxy(paged.port, cut_after=[2000, 5000]) as proxy:
        with chromium(tmp_path, address(proxy.port, tag, message)):
            answer = report(paged, tag)
        assert proxy.broken == 2
    assert answer["text"] == upstream.story * 8
    assert answer["ends"] == [["done", {"finish_reason": "stop"}]]
    assert (answer["loads"], answer["opened"]) == (1, 3)
    assert len(set(answer["ids"])) == len(answer["ids"])
    assert upstream.asked_for(message) == 1


def test_its_worker_is_killed(paged: Server, upstream: Aimock, tmp_path: Path, tag: str) -> None:
    """It keeps the text so far, gets the end once, and does not reconnect again."""
    message = f"slow story #{tag}"
    with chromium(tmp_path, address(paged.port, tag, message)):
        run = run_in(paged, tag)

        def asking() -> list[psutil.Process]:
            """One alone; the other may still have an idle connection from an earlier test."""
            found = connected_to(paged, upstream.port)
            return found if len(found) == 1 else []

        (writer,) = until(asking, "one worker has a connection to the upstream", pause=0.1)
        writer.kill()
        answer = report(paged, tag)
    ((kind, failure),) = answer["ends"]
    assert (kind, failure["error"]["code"]) == ("failure", "interrupted")
    with attach(paged, run, "text") as stream:
        kept = read(stream, "text")
    assert kept.outcome == "failed"
    assert answer["text"] == kept.text
    assert kept.text
    assert (upstream.story * 20).startswith(kept.text)
    assert upstream.asked_for(message) == 1
