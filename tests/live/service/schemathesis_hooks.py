"""What Schemathesis can't know of the contract; loaded by it, see `schemathesis.toml`."""

from __future__ import annotations

import json
from typing import Any

import schemathesis

from sseflask.wire import Decoder


@schemathesis.hook
def before_load_schema(_context: Any, document: dict[str, Any]) -> None:
    """What leads to the same code is tried once: another name of a route, another kind of form."""
    del document["paths"]["/sse/async_openai_out"]
    for path in document["paths"].values():
        for operation in path.values():
            operation.get("requestBody", {}).get("content", {}).pop("multipart/form-data", None)


@schemathesis.hook
def before_call(_context: Any, case: Any, _request: dict[str, Any]) -> None:
    """Rules that a schema can't express.

    A parameter may come in the query or in the body, but once, and so may a token, of which one is
    in a header. A header wins over the parameter that says the same. A field of a form that is
    JSON can't be any text.
    """
    body, query = case.body, case.query or {}
    if isinstance(body, dict):
        body.pop("token", None)
        if case.media_type != "application/json":
            body.pop("messages", None)
        case.query = {name: value for name, value in query.items() if name not in body}
    if case.query:
        case.query.pop("access_token", None)
    given = {**(case.query or {}), **(body if isinstance(body, dict) else {})}
    for header, parameter in (
        ("Idempotency-Key", "idempotency_key"),
        ("Last-Event-ID", "last_event_id"),
    ):
        if parameter in given and case.headers:
            case.headers.pop(header, None)


@schemathesis.check
def streams_are_whole(_context: Any, response: Any, case: Any) -> None:
    """A stream is one to its end, and what it says in band is what is documented."""
    kind = response.headers.get("content-type", [""])[0]
    if not kind.startswith("text/event-stream") or case.method == "HEAD":
        return
    assert response.content[-1:] in (b"", b"\n"), "cut in a line"
    for event in Decoder().feed(response.content):
        if event.event == "failure":
            error = json.loads(event.data)["error"]
            assert set(error) >= {"message", "type", "param", "code"}
        elif event.event == "gap":
            gap = json.loads(event.data)
            assert set(gap) == {"reason", "channel", "last_event_id", "oldest", "newest"}
