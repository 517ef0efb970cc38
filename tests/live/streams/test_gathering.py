"""Behind a proxy that compresses: npm's compression, which Express applications use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.live.kit.clients import open_stream, wake
from tests.live.kit.servers import Server, free_port, running
from tests.live.kit.tools import node_packages, tool


def test_compression_does_not_gather_events(
    start_server: Callable[[str], Server], tmp_path: Path, tag: str
) -> None:
    """Each is made only after the one before has arrived: nothing may be held back."""
    server, port = start_server("gunicorn-worker"), free_port()
    command = [tool("node"), str(node_packages() / "gathering.mjs"), str(port), str(server.port)]
    with running("compression", command, port, tmp_path) as proxy:
        asked = {"Accept-Encoding": "gzip, br"}
        with open_stream(proxy, f"/silent?tag={tag}&wakes=2", headers=asked) as stream:
            assert "content-encoding" not in stream.head.headers
            assert stream.next().data == "first"
            for n in (1, 2):
                wake(server, tag)
                assert stream.next().data == f"woken {n}"
