"""The counter, the session, and the checks of a platform."""

from __future__ import annotations

from typing import Any

from sseflask.openapi.components import header
from sseflask.openapi.fields import cursor, forms_of, query
from sseflask.openapi.operation import (
    BODY,
    TOKEN,
    answer,
    json_answer,
    last_event_id,
    operation,
)
from sseflask.openapi.streams import event_stream
from sseflask.routes.counter import CounterParameters
from sseflask.routes.session import SessionParameters


def _counter(method: str) -> dict[str, Any]:
    return operation(
        f"{method}Counter",
        "counter",
        "Count, one event each",
        {
            "200": answer(
                "Numbers from 0, or from the one after the cursor.",
                event_stream("CounterEvent"),
                header("Cache-Control"),
            ),
            "204": answer("Nothing is left; to an EventSource the end."),
        },
        (*BODY, "503"),
        description="A parameter may come in the query, in a form or in a JSON object, but once.",
        parameters=[*query(CounterParameters), last_event_id(cursor(CounterParameters))],
        body=forms_of(CounterParameters) if method == "post" else None,
    )


def _hello(method: str) -> dict[str, Any]:
    schema = {
        "type": "object",
        "required": ["message"],
        "properties": {"message": {"const": "Hello World"}},
    }
    return operation(
        f"{method}Hello",
        "counter",
        "An ordinary response to compare a stream with",
        {"200": json_answer("A greeting.", schema)},
    )


_STATUS = {
    "type": "object",
    "required": ["status"],
    "properties": {"status": {"const": "ok"}},
}
_READY = {"$ref": "#/components/schemas/Ready"}

PATHS: dict[str, Any] = {
    "/": {
        "get": operation(
            "page",
            "service",
            "The page on which to try the service",
            {"200": answer("The page.", {"text/html": {"schema": {"type": "string"}}})},
            ("404",),
            description="Not there (404) unless in development mode or with `SSEFLASK_PAGE=true`.",
        )
    },
    "/static/sse.js": {
        "get": operation(
            "clientModule",
            "service",
            "The client module for browsers and Node",
            {
                "200": answer("An ES module.", {"text/javascript": {"schema": {"type": "string"}}}),
                "304": answer("It has not changed."),
            },
        )
    },
    "/sse/v1": {method: _counter(method) for method in ("get", "post")},
    "/sse/no_sse": {method: _hello(method) for method in ("get", "post")},
    "/session": {
        "post": operation(
            "openSession",
            "session",
            "Trade a token for a cookie, for pages of this server",
            {"204": answer("The cookie ends when the token does.", headers=header("Set-Cookie"))},
            (*BODY, "401", "403"),
            description="The token is in the header `Authorization`, or in the body; not in the "
            "address.",
            body=forms_of(SessionParameters),
        ),
        "delete": operation(
            "closeSession",
            "session",
            "Delete the cookie in the browser",
            {"204": answer("Deleted.", headers=header("Set-Cookie"))},
            ("403",),
        ),
    },
    "/healthz": {
        "get": operation(
            "alive",
            "service",
            "Whether the process answers",
            {"200": json_answer("It does.", _STATUS)},
        )
    },
    "/readyz": {
        "get": operation(
            "ready",
            "service",
            "Whether requests may be sent here, and the state of the stores",
            {
                "200": json_answer("They may.", _READY),
                "503": json_answer("The worker shuts down.", _READY),
            },
        )
    },
    "/metrics": {
        "get": operation(
            "figures",
            "service",
            "The figures of all workers, for Prometheus",
            {
                "200": answer(
                    "Prometheus' text format, or OpenMetrics if the client prefers it.",
                    {
                        "text/plain": {"schema": {"type": "string"}},
                        "application/openmetrics-text": {"schema": {"type": "string"}},
                    },
                )
            },
            ("400", "401", "403"),
            description="Needs a token with the right `subscribe` for the channel `sseflask.live`.",
            security=TOKEN,
        )
    },
    "/openapi.json": {
        "get": operation(
            "contract",
            "service",
            "This document",
            {
                "200": json_answer("The document.", {"type": "object"}, header("Cache-Control")),
                "304": answer("It has not changed."),
            },
        )
    },
}
