"""Chromium reads a run with EventSource; the page is reloaded in the middle of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.live.durable.test_death import resumable
from tests.live.kit.browser import chromium
from tests.live.kit.durable import EVERYWHERE, Place, kill, texts
from tests.live.kit.waiting import until


def address(place: Place, tag: str, **asked: object) -> str:
    """The page that reads the run of this tag, which its key makes one run."""
    reload: dict[str, object] = {
        name: asked.pop(name) for name in ("reload", "times", "way") if name in asked
    }
    query: dict[str, object] = {
        "tag": tag,
        "key": f"key-{tag}",
        "on_disconnect": "continue",
        **asked,
    }
    path = f"/run/numbers?{urlencode(query)}"
    return f"{place.server.url}/page?{urlencode({'tag': f'{tag}.page', 'path': path, **reload})}"


def report(place: Place, tag: str) -> dict[str, Any]:
    """What the page says when its EventSource was closed by a 204."""
    (last,) = until(lambda: place.marks(f"{tag}.page"), "the page's report", seconds=60)
    said: dict[str, Any] = json.loads(last)
    return said


@pytest.mark.parametrize("place", EVERYWHERE, indirect=True)
@pytest.mark.parametrize("way", ["cursor", "nothing"])
def test_reloaded(place: Place, tmp_path: Path, tag: str, way: str) -> None:
    """Twice: it goes on where it was, or, if it has kept nothing, sees the whole of it again."""
    with chromium(
        tmp_path, address(place, tag, count=30, interval=0.05, reload=6, times=2, way=way)
    ):
        said = report(place, tag)
    assert said["loads"] == 3
    assert said["data"] == texts(tag, 30)
    assert said["ends"] == [["done", {"status": "finished", "result": {"count": 30}}]]
    assert len(set(said["ids"])) == len(said["ids"]) == 31
    assert len(place.starts(tag)) == 1


@pytest.mark.parametrize("place", ["gunicorn-worker"], indirect=True)
@pytest.mark.parametrize("resume", [False, True])
def test_its_worker_is_killed(place: Place, tmp_path: Path, tag: str, resume: bool) -> None:
    """It keeps what it has, and comes back by itself: to the failure, or to the rest."""
    name, asked = resumable(tag, 12)
    more = {"resume": "again"} if resume else {}
    with chromium(tmp_path, address(place, name, **asked, **more)):
        place.allow(name, 4)
        place.writer(name)
        run = until(lambda: place.marks(f"{name}.page.run"), "the page has a run", seconds=60)[0]
        until(lambda: len(place.result(run)["items"]) == 4, "four items")
        kill(place.writer(name))
        place.allow(name, 12)
        said = report(place, name)
    ((kind, data),) = said["ends"]
    if resume:
        assert (kind, said["data"]) == ("done", texts(name, 12))
    else:
        assert (kind, data["error"]["code"]) == ("failure", "interrupted")
        assert said["data"] == texts(name, 4)
