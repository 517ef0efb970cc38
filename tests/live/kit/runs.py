"""Runs of the service as clients see them: started, viewed, resumed, stopped."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import jwt

from tests.live.kit.aimock import Aimock
from tests.live.kit.clients import Stream, open_stream
from tests.live.kit.connection import Answer, Connection
from tests.live.kit.events import Sent
from tests.live.kit.run_events import Decoded, plain, without_heartbeats
from tests.live.kit.scripted import ScriptedAnswer, ScriptedUpstream
from tests.live.kit.servers import Server
from tests.live.kit.services import SECRET, SERVICE, authorization, service, upstream_settings

START = "/sse/openai_out"
JSON = {"Content-Type": "application/json"}
RUN = re.compile(r"[0-9a-f]{32}\Z")
NO_RUN = "0123456789abcdef" * 2


def run_service(
    directory: Path,
    upstream: Aimock | ScriptedUpstream | int,
    *options: str,
    workers: int = 2,
    port: int | None = None,
    settings: Mapping[str, str] | None = None,
    application: str = SERVICE,
) -> AbstractContextManager[Server]:
    """The service in front of an upstream, without limits: loopback or a token will do.

    Args:
        directory: see `service`, as for all that is not named here.
        upstream: the upstream, or the port of what is in front of it.
    """
    asked = upstream_settings(upstream) if isinstance(upstream, int) else upstream.settings()
    changes = {
        "SSEFLASK_SECRET": SECRET,
        "SSEFLASK_HEARTBEAT": "0.5",
        "SSEFLASK_RATE_LIMIT": "off",
        "SSEFLASK_MAX_RUNS": "1000",
        **asked,
        **(settings or {}),
    }
    grace = ["--graceful-timeout", "6"]
    return service(
        directory,
        *grace,
        *options,
        workers=workers,
        port=port,
        settings=changes,
        application=application,
    )


def path_of(path: str, **parameters: Any) -> str:
    given = {name: value for name, value in parameters.items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path


def start_path(message: str, **parameters: str) -> str:
    """Where a run with this message is started by its address alone."""
    return path_of(START, user_message=message, **parameters)


def start(
    where: Server | Connection | int,
    message: ScriptedAnswer | str,
    headers: Mapping[str, str] | None = None,
    **parameters: Any,
) -> Stream:
    """Start a run with a JSON body, and read the response's head."""
    fields = {**JSON, **(headers or {})}
    return open_stream(where, START, method="POST", headers=fields, body=_body(message, parameters))


def _body(message: ScriptedAnswer | str, parameters: Mapping[str, Any]) -> bytes:
    text = message if isinstance(message, str) else message.message
    return json.dumps({"user_message": text, **parameters}).encode()


def attach(
    where: Server | Connection | int,
    run: str,
    format: str | None = None,
    last: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Stream:
    """View a run, from its start or after an id; without a format in the service's usual one."""
    cursor = {} if last is None else {"Last-Event-ID": last}
    return open_stream(
        where, path_of(f"/runs/{run}", format=format), headers={**cursor, **(headers or {})}
    )


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
    """A request whose answer is no stream; if it is one, only the head is read."""
    with Connection(server) as connection:
        connection.request(path, method=method, headers=headers, body=body)
        head = connection.head()
        streamed = head.headers.get("content-type", "").startswith("text/event-stream")
        return Answer(head.status, head.headers, b"" if streamed else connection.body(head))


def ask_start(
    server: Server,
    message: ScriptedAnswer | str,
    headers: Mapping[str, str] | None = None,
    **parameters: Any,
) -> Answer:
    """Start a run that is expected to be refused or to fail at once."""
    return ask(server, START, "POST", {**JSON, **(headers or {})}, _body(message, parameters))


def stop(server: Server | int, run: str, headers: Mapping[str, str] | None = None) -> str:
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


def take(stream: Stream, pieces: int, format: str = "text") -> list[Sent]:
    """The next events until so many of them had text (or half a character); none may be the end."""
    events: list[Sent] = []
    while pieces:
        event = stream.next()
        decoded = Decoded(format, [event])
        assert not decoded.outcome, event
        events.append(event)
        pieces -= bool(decoded.pieces)
    return events


def read(stream: Stream, format: str, before: Sequence[Sent] = ()) -> Decoded:
    """The rest of a run, to its terminal event and the end of the response; closes the stream.

    Args:
        stream: what is read.
        format: its format.
        before: what of it has been read already.
    """
    decoded = Decoded(format, [*before, *rest(stream)])
    assert decoded.outcome, f"no terminal event: {decoded.events[-3:]}"
    return decoded


def replay(
    where: Server | Connection | int,
    run: str,
    format: str,
    headers: Mapping[str, str] | None = None,
) -> list[Sent]:
    """The events of a run, from its start to its end, for which this waits."""
    stream = attach(where, run, format, headers=headers)
    assert stream.head.status == 200, stream.head
    assert run_of(stream) == run
    return rest(stream)


def read_run(where: Server | Connection | int, run: str, format: str = "text") -> Decoded:
    """What a run has said, from its start to its end, for which this waits."""
    return Decoded(format, replay(where, run, format))


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
    return authorization(jwt.encode(claims, SECRET, algorithm="HS256"))
