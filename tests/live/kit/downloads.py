"""curl reading streams in the background, and how each of them ended."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator

from tests.live.kit.clients import curl_in_background
from tests.live.kit.events import EventParser, Sent
from tests.live.kit.servers import Server


class Download:
    """curl reading a stream; `events` and `retry` tell what it got once it has ended."""

    def __init__(self, process: subprocess.Popen[bytes], tag: str) -> None:
        self.process = process
        self.tag = tag
        assert process.stdout is not None
        self._start = process.stdout.readline()

    def going_on(self) -> bool:
        return self.process.poll() is None

    def finish(self) -> None:
        rest, complaint = self.process.communicate(timeout=30)
        assert self.process.returncode == 0, f"curl: {complaint.decode()}"
        retries: list[str] = []
        parser = EventParser(retries)
        events = [each for each in parser.feed(self._start + rest) if isinstance(each, Sent)]
        assert not parser.unfinished(), parser.unfinished()
        self.retry = int(retries[-1]) if retries else None
        self.failure = json.loads(events.pop().data or "")["error"] if events[-1].event else None
        self.data = [each.data or "" for each in events]

    def assert_sent_away(self) -> None:
        self.finish()
        assert self.failure is None
        assert self.retry is not None
        assert 500 <= self.retry <= 3000, "jittered"

    def assert_failed_in_band(self) -> None:
        self.finish()
        assert self.retry is None
        assert self.failure is not None
        assert self.failure["code"] == "shutting_down"
        assert set(self.failure) == {"message", "type", "param", "code"}

    def assert_undisturbed(self) -> None:
        self.finish()
        assert (self.failure, self.retry) == (None, None)


@contextlib.contextmanager
def downloads(server: Server, *paths: str) -> Iterator[list[Download]]:
    """Several streams, each one seen to have begun."""
    with contextlib.ExitStack() as stack:
        begun = []
        for n, path in enumerate(paths):
            tag = f"download-{n}"
            process = stack.enter_context(curl_in_background(server, f"{path}&tag={tag}"))
            begun.append(Download(process, tag))
        yield begun
