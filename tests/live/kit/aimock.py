"""npm's aimock: an OpenAI-compatible upstream that others wrote."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.live.kit.connection import fetch
from tests.live.kit.servers import environment
from tests.live.kit.services import KEY, upstream_settings
from tests.live.kit.tools import node_packages
from tests.live.kit.waiting import until


@dataclass(frozen=True)
class Aimock:
    """A running aimock.

    Args:
        port: where it listens on 127.0.0.1.
        story: the text of its usual answer.
        tale: what it makes the answers to "tale #<tag>" of.
    """

    port: int
    story: str
    tale: dict[str, Any] = field(default_factory=dict)

    def settings(self) -> dict[str, str]:
        return upstream_settings(self.port)

    def tale_of(self, tag: str) -> str:
        """Its answer to "tale #<tag>": another text for each tag."""
        return str(self.tale["text"]).replace("{}", tag) * int(self.tale["times"])

    def _counted(self, status: str) -> int:
        metrics = fetch(self.port, "/metrics").body.decode()
        labels = (
            r'aimock_requests_total\{[^}]*path="/v1/(?:chat/completions|responses)"'
            r'[^}]*status="%s"[^}]*\} (\d+)'
        )
        return sum(int(found) for found in re.findall(labels % status, metrics))

    def destroyed(self) -> int:
        """How many of its streams were closed by their reader before they had ended."""
        return self._counted("destroyed")

    def served(self) -> int:
        """How many completions it has been asked for, whatever became of them."""
        return self._counted('[^"]*')

    def wait_for_destroyed(self, count: int) -> None:
        until(lambda: self.destroyed() >= count, f"{count} upstream streams closed early")

    def journal(self) -> list[dict[str, Any]]:
        """Every request it got, those that are still being answered too."""
        entries = json.loads(fetch(self.port, "/__aimock/journal").body)
        if isinstance(entries, dict):
            entries = entries["entries"]
        return list(entries)

    def forget(self) -> None:
        """Empty the journal; what is counted goes on."""
        assert fetch(self.port, "/__aimock/reset/journal", method="POST").status == 200

    def asked(self) -> list[dict[str, object]]:
        """The bodies of the requests it got."""
        return [each["body"] for each in self.journal() if each["path"] == "/v1/chat/completions"]

    def last_messages(self) -> list[object]:
        """The last message of each request it got, by whatever endpoint."""
        bodies = [each["body"] for each in self.journal() if each["body"]]
        return [body["messages"][-1]["content"] for body in bodies if body.get("messages")]

    def asked_for(self, message: str) -> int:
        """How many requests it got whose last message is this one."""
        return self.last_messages().count(message)


@contextlib.contextmanager
def running_aimock(directory: Path) -> Iterator[Aimock]:
    """aimock with the answers of tests/node/upstream.mjs; skipped if node is missing."""
    log = directory / "upstream.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            ["node", "upstream.mjs", KEY],
            cwd=node_packages(),
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
    with process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, log.read_text()
            started = json.loads(line)
            port = int(started["url"].rsplit(":", 1)[1])
            yield Aimock(port, started["story"], started["tale"])
        finally:
            process.kill()
