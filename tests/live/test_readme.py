"""README's first example as it is printed: saved, started with its line, shown to a browser."""

from __future__ import annotations

import contextlib
import json
import re
import resource
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.browser import chromium
from tests.live.clients import Stream, open_stream
from tests.live.connection import Connection, fetch
from tests.live.servers import GUNICORN, ROOT, Server, free_port, running
from tests.live.waiting import until

README = (ROOT / "README.md").read_text(encoding="utf-8")

#: The page that the tests of streams use, beside the example.
PAGE = """
from myapp import app
from tests.live.probe.notes import page

app.register_blueprint(page("probe.html"))
"""


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("readme")
    code = re.search(r"```python\n(.+?)```", README, re.DOTALL)
    line = re.search(r"^\$ gunicorn (myapp:app .+)$", README, re.MULTILINE)
    assert code
    assert line
    (directory / "myapp.py").write_text(code[1])
    (directory / "page.py").write_text(PAGE)
    port = free_port()
    arguments = [each.replace("myapp", "page") for each in shlex.split(line[1])]
    command = [*GUNICORN, "-b", f"127.0.0.1:{port}", *arguments]
    with running("readme", command, port, directory, ready="/page", cwd=directory) as server:
        yield server
    server.assert_log_is_clean()
    assert "Warning" not in server.log(), "of what was imported before gevent's patches, above all"


def test_a_browser_gets_each_event_once(example: Server, tmp_path: Path) -> None:
    """And asks no more: it was told 0 1 2 0 1 2 for ever."""
    with chromium(tmp_path, f"{example.url}/page?tag=readme&path=/clock"):
        (report,) = until(lambda: example.marks("readme"), "the report", seconds=60)
    events = json.loads(report)
    assert [each[2] for each in events] == ["0", "1", "2"]
    assert len({each[0] for each in events}) == 3, "the time goes on"


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
