"""README's first example as it is printed: saved, started with its line, shown to a browser."""

from __future__ import annotations

import contextlib
import resource
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documents.blocks import blocks
from tests.live.kit.browser import chromium
from tests.live.kit.clients import Stream, open_stream
from tests.live.kit.connection import Connection, fetch
from tests.live.kit.servers import GUNICORN, ROOT, Server, free_port, running
from tests.live.kit.waiting import until

README = blocks(ROOT / "README.md")

#: README's script in a page, beside the example: what it logs is noted for the test.
PAGE = """
from clock import app
from tests.live.kit.notes import page

app.register_blueprint(page("probe.html"))


@app.get("/shown")
def shown():
    return SHOWN
"""
SHOWN = """<!doctype html><title>shown</title><script>
const lines = [];
console.log = (...words) => {
  lines.push(words.join(" "));
  const noted = { method: "POST", body: lines.join("\\n") };
  if (words[0] === "the end") fetch("/note?tag=readme", noted);
};
SCRIPT</script>"""


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("readme")
    code = next(each.text for each in README if each.language == "python")
    line = next(each.text for each in README if each.text.startswith("gunicorn clock:app"))
    script = next(each.text for each in README if each.language == "js")
    (directory / "clock.py").write_text(code)
    shown = SHOWN.replace("SCRIPT", script)
    (directory / "page.py").write_text(f"{PAGE}\n\nSHOWN = {shown!r}\n")
    port = free_port()
    arguments = [each.replace("clock", "page") for each in shlex.split(line)[1:]]
    command = [*GUNICORN, "-b", f"127.0.0.1:{port}", *arguments]
    with running("readme", command, port, directory, ready="/page", cwd=directory) as server:
        yield server
    server.assert_log_is_clean()
    assert "Warning" not in server.log(), "of what was imported before gevent's patches, above all"


def test_a_browser_gets_each_event_once_and_the_end(example: Server, tmp_path: Path) -> None:
    """And it does not reconnect: it once got 0 1 2 0 1 2 for ever."""
    with chromium(tmp_path, f"{example.url}/shown"):
        lines = until(lambda: example.marks("readme"), "the report", seconds=60)
    assert [line.split(" ")[0] for line in lines] == ["0", "1", "2", "the"]
    assert len(set(lines)) == 4, "the time goes on"
    assert lines[-1] == "the end"


def test_it_goes_on_where_the_client_is(example: Server) -> None:
    with open_stream(example, "/clock", headers={"Last-Event-ID": "1"}) as stream:
        assert [event.id for event in stream.rest()] == ["2"]
    assert fetch(example, "/clock", headers={"Last-Event-ID": "2"}).status == 204
    with open_stream(example, "/clock", headers={"Last-Event-ID": "nonsense"}) as stream:
        assert stream.next().id == "0"


def test_its_line_keeps_what_the_table_promises(example: Server) -> None:
    """More streams than the 1,000 connections of gunicorn's own default."""
    assert "StreamWorker" in example.log()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    try:
        with contextlib.ExitStack() as stack:
            connections = [stack.enter_context(Connection(example)) for _ in range(1100)]
            for connection in connections:
                connection.request("/clock")
            assert {Stream(connection).next().id for connection in connections} == {"0"}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
