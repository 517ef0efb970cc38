"""An application with channels, and clients that publish to them."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.live.kit.background import Background
from tests.live.kit.connection import Answer, fetch
from tests.live.kit.servers import GUNICORN, WORKER, Server, free_port, running
from tests.live.kit.services import logs
from tests.live.kit.waiting import until

JSON = "application/json"
#: The same application as on every kind of server, with a store that the test chooses.
LIBRARY = "tests.live.channels.library_app:app"


@contextlib.contextmanager
def channel_library(
    directory: Path, *options: str, settings: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """A small application with the library, without the service's rights, on our worker."""
    port = free_port()
    command = [*GUNICORN, "-b", f"127.0.0.1:{port}", "-k", WORKER, *options, LIBRARY]
    changes = {**logs(directory), **(settings or {})}
    with running("gunicorn-library", command, port, directory, changes) as server:
        yield server
    server.assert_log_is_clean()


def post(
    server: Server | int,
    channel: str,
    body: bytes,
    kind: str | None = JSON,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Ask to publish this body."""
    fields = {**({"Content-Type": kind} if kind else {}), **(headers or {})}
    return fetch(server, f"/channels/{channel}", method="POST", headers=fields, body=body)


def publish(
    server: Server | int,
    channel: str,
    data: Any,
    headers: Mapping[str, str] | None = None,
    **fields: Any,
) -> str:
    """Publish one event; its id."""
    answer = post(server, channel, json.dumps({"data": data, **fields}).encode(), JSON, headers)
    assert answer.status == 201, f"{answer.status} {answer.body!r}"
    said = json.loads(answer.body)
    assert set(said) == {"id"}
    assert isinstance(said["id"], str)
    return said["id"]


def publish_all(
    server: Server | int, channel: str, data: list[str], headers: Mapping[str, str] | None = None
) -> list[str]:
    """Publish events in arrays, as large as an array may be; their ids."""
    ids: list[str] = []
    for start in range(0, len(data), 1000):
        events = [{"data": each} for each in data[start : start + 1000]]
        answer = post(server, channel, json.dumps(events).encode(), JSON, headers)
        assert answer.status == 201, f"{answer.status} {answer.body!r}"
        ids += json.loads(answer.body)["ids"]
    return ids


def error_of(answer: Answer, *statuses: int) -> dict[str, Any]:
    """The error that an answer tells, in the shape that all have."""
    assert answer.status in statuses, f"{answer.status} {answer.body!r}"
    assert answer.headers["content-type"] == JSON, answer.headers
    said = json.loads(answer.body)
    assert set(said) == {"error"}
    error: dict[str, Any] = said["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return error


def number(event_id: str) -> int:
    """What an id is in its epoch; clients must not look, tests may."""
    return int(event_id.rpartition("-")[2])


def epoch(event_id: str) -> str:
    return event_id.rpartition("-")[0]


class Publisher(Background):
    """Publishes "<name>-0", "<name>-1", ... in a thread, each until it is stored.

    Every request has an Idempotency-Key of its own and is repeated with it until it is answered:
    whatever happens to the server, each event is published once.

    Args:
        port: where the server listens; of several ports a request that is repeated takes the next.
        channel: the channel.
        name: what the data begin with.
        per_second: how many requests at the most; 0 is as many as possible.
        batch: how many events a request; 1 is a JSON object, more are an array.
        headers: further request headers.
    """

    def __init__(
        self,
        port: int | Sequence[int],
        channel: str,
        name: str,
        *,
        per_second: float = 0,
        batch: int = 1,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.ports = [port] if isinstance(port, int) else list(port)
        self.channel = channel
        self.name = name
        self.pause = 1 / per_second if per_second else 0.0
        self.batch = batch
        self.headers = headers or {}
        #: (id, data) of what was stored, in order.
        self.taken: list[tuple[str, str]] = []
        self.repeated = 0
        self.refused: list[int] = []

    def data(self) -> list[str]:
        return [data for _, data in self.taken]

    def wait_for(self, more: int) -> None:
        """Wait until this many more events are stored."""
        enough = len(self.taken) + more

        def taken() -> bool:
            self.check()
            return len(self.taken) >= enough

        until(taken, f"{more} more events published to {self.channel}", seconds=40)

    def run(self) -> None:
        """Publish; the request under way is still answered."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[0], timeout=20)
        numbers = itertools.count()
        with contextlib.closing(connection):
            while self.going_on:
                self._publish(connection, next(numbers))
                time.sleep(self.pause)

    def _publish(self, connection: http.client.HTTPConnection, request: int) -> None:
        first = len(self.taken)
        data = [f"{self.name}-{first + n}" for n in range(self.batch)]
        content: Any = [{"data": each} for each in data]
        body = json.dumps(content if self.batch > 1 else content[0])
        key = f"{self.name}-{request}"
        headers = {**self.headers, "Content-Type": JSON, "Idempotency-Key": key}
        while True:
            try:
                connection.request("POST", f"/channels/{self.channel}", body, headers)
                answer = connection.getresponse()
                said = json.loads(answer.read() or b"null")
            except (OSError, http.client.HTTPException):
                self._go_elsewhere(connection)
                self.repeated += 1
                time.sleep(0.02)
                continue
            if answer.status == 201:
                ids = said["ids"] if self.batch > 1 else [said["id"]]
                assert len(ids) == self.batch
                self.taken += zip(ids, data, strict=True)
                return
            assert answer.status == 503, f"{answer.status} {said}"
            self.refused.append(answer.status)
            self._go_elsewhere(connection)
            time.sleep(0.05)

    def _go_elsewhere(self, connection: http.client.HTTPConnection) -> None:
        """Let the next request open the connection again, to the next port if there are several."""
        connection.close()
        known = self.ports.index(connection.port)
        connection.port = self.ports[(known + 1) % len(self.ports)]
