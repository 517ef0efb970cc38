"""Runs as clients see them: started, viewed, resumed, stopped; on the worker of one's choice."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import jwt
import psutil

from tests.live.kit.clients import Sent, Stream
from tests.live.kit.connection import Answer, Connection
from tests.live.kit.paced import PacedUpstream, Play
from tests.live.kit.run_events import plain, without_heartbeats
from tests.live.kit.servers import Server
from tests.live.kit.services import SECRET, service
from tests.live.kit.sockets import inode, owners
from tests.live.kit.waiting import until

START = "/sse/openai_out"
JSON = {"Content-Type": "application/json"}
RUN = re.compile(r"[0-9a-f]{32}\Z")
NO_RUN = "0123456789abcdef" * 2


def run_service(
    directory: Path,
    upstream: PacedUpstream,
    *options: str,
    workers: int = 2,
    port: int | None = None,
    settings: Mapping[str, str] | None = None,
) -> AbstractContextManager[Server]:
    """The service in front of this upstream, without limits: loopback or a token will do."""
    changes = {
        "SSEFLASK_SECRET": SECRET,
        "SSEFLASK_HEARTBEAT": "0.5",
        "SSEFLASK_RATE_LIMIT": "off",
        "SSEFLASK_MAX_RUNS": "1000",
        **upstream.settings(),
        **(settings or {}),
    }
    grace = ["--graceful-timeout", "6"]
    return service(directory, *grace, *options, workers=workers, port=port, settings=changes)


def connected(server: Server, port: int) -> list[psutil.Process]:
    """The workers with an open connection whose other end is this port."""
    found = []
    for worker in server.workers():
        with contextlib.suppress(psutil.Error):  # it is just ending
            known = [each for each in worker.net_connections("tcp4") if each.raddr]
            if any((each.raddr.port, each.status) == (port, "ESTABLISHED") for each in known):
                found.append(worker)
    return found


def _owners(server: Server, connection: Connection) -> list[psutil.Process]:
    """The worker that has accepted a connection, or none."""
    return owners(server.workers(), inode(server.port, connection.socket.getsockname()[1]))


def connect_to(server: Server, worker: psutil.Process) -> Connection:
    """A connection that this worker has accepted.

    Which one does is up to the kernel: connections that another has got are closed again.
    """

    def attempt() -> Connection | None:
        connection = Connection(server)
        try:
            accepted = until(lambda: _owners(server, connection), "a worker accepts", seconds=60)
            if worker in accepted:
                return connection
        except BaseException:
            connection.close()
            raise
        connection.close()
        return None

    found = until(attempt, f"a connection to worker {worker.pid}", seconds=60)
    assert found is not None
    return found


def owner_of(server: Server, connection: Connection) -> psutil.Process:
    """The worker that serves a connection."""
    (found,) = _owners(server, connection)
    return found


def another_worker(server: Server, connection: Connection) -> psutil.Process:
    """One that does not serve this connection."""
    owner = owner_of(server, connection)
    return next(worker for worker in server.workers() if worker != owner)


def opened(
    where: Server | Connection,
    path: str,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> Stream:
    """Ask for a stream, on this connection or on a new one; its head has been read."""
    connection = where if isinstance(where, Connection) else Connection(where)
    try:
        connection.request(path, method=method, headers=headers, body=body)
        return Stream(connection)
    except BaseException:
        connection.close()
        raise


def path_of(path: str, **parameters: Any) -> str:
    given = {name: value for name, value in parameters.items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path


def start(
    where: Server | Connection,
    play: Play,
    headers: Mapping[str, str] | None = None,
    **parameters: Any,
) -> Stream:
    """Start a run of this play with a JSON body, and read the response's head."""
    body = json.dumps({"user_message": play.message, **parameters}).encode()
    return opened(where, START, "POST", {**JSON, **(headers or {})}, body)


def attach(
    where: Server | Connection,
    run: str,
    form: str | None = None,
    last: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Stream:
    """View a run, from the start or after an id."""
    cursor = {} if last is None else {"Last-Event-ID": last}
    return opened(where, path_of(f"/runs/{run}", format=form), "GET", {**cursor, **(headers or {})})


def run_of(answer: Stream | Answer) -> str:
    """The id of the run that a response belongs to."""
    headers = answer.head.headers if isinstance(answer, Stream) else answer.headers
    run = headers["x-run-id"]
    assert RUN.match(run), run
    return run


def ask(
    server: Server | int,
    path: str,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> Answer:
    """A request whose answer is no stream; of one that is, only the head is read."""
    port = server if isinstance(server, int) else server.port
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection):
        connection.request(method, path, body=body, headers=dict(headers or {}))
        response = connection.getresponse()
        fields = {name.lower(): value for name, value in response.getheaders()}
        streamed = fields.get("content-type", "").startswith("text/event-stream")
        return Answer(response.status, fields, b"" if streamed else response.read())


def ask_start(
    server: Server, play: Play, headers: Mapping[str, str] | None = None, **parameters: Any
) -> Answer:
    """Start a run that is expected to be refused or to fail at once."""
    body = json.dumps({"user_message": play.message, **parameters}).encode()
    return ask(server, START, "POST", {**JSON, **(headers or {})}, body)


def stop(server: Server, run: str, headers: Mapping[str, str] | None = None) -> str:
    """DELETE it; the status that the run has then."""
    answer = ask(server, f"/runs/{run}", "DELETE", headers)
    assert answer.status == 200, f"{answer.status} {answer.body!r}"
    said = json.loads(answer.body)
    assert set(said) == {"id", "status"}
    assert said["id"] == run
    assert isinstance(said["status"], str)
    return said["status"]


def rest(stream: Stream) -> list[Sent]:
    """All that is left of a stream, which has to end properly; closes it."""
    with stream:
        return plain(stream.rest())


def whole(
    server: Server, run: str, form: str, headers: Mapping[str, str] | None = None
) -> list[Sent]:
    """A run from its start to its end, in this form."""
    stream = attach(server, run, form, headers=headers)
    assert stream.head.status == 200, stream.head
    return rest(stream)


def raw(stream: Stream) -> bytes:
    """The rest of a stream's bytes, without heartbeats and the pace of reconnecting; closes it."""
    with stream:
        return without_heartbeats(stream.connection.body(stream.head))


def all_at_once(*jobs: Callable[[], Any]) -> list[Any]:
    """Do these in threads that begin together; what they return."""
    barrier = threading.Barrier(len(jobs))

    def do(job: Callable[[], Any]) -> Any:
        barrier.wait(30)
        return job()

    with ThreadPoolExecutor(len(jobs)) as pool:
        return list(pool.map(do, jobs))


def bearer(subject: str, seconds: float = 7200, **rights: Any) -> dict[str, str]:
    """The header with a token, as docs/configuration.md describes it; by default to complete."""
    claims = {"sub": subject, "exp": int(time.time() + seconds), **(rights or {"complete": True})}
    return {"Authorization": f"Bearer {jwt.encode(claims, SECRET, algorithm='HS256')}"}
