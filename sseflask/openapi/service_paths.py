"""The counter, the session, and the checks of a platform."""

from __future__ import annotations

from functools import partial
from typing import Any

from sseflask.openapi.fields import forms_of, parameters_of
from sseflask.openapi.operation import BODY, TOKEN, answer, json_of, operation, parameter
from sseflask.openapi.schemas import TEXT, event_stream, record, ref
from sseflask.routes.counter import CounterParameters
from sseflask.routes.session import SessionParameters

_service = partial(operation, "service")


def _counter(method: str) -> dict[str, Any]:
    return operation(
        "counter",
        f"{method}Counter",
        "Count, one event each",
        {
            "200": answer(
                "Numbers from 0, or from the one after the cursor.",
                event_stream("CounterEvent"),
                "Cache-Control",
            ),
            "204": answer("Nothing is left; to an EventSource the end."),
        },
        (*BODY, "503"),
        description="A parameter may come in the query, in a form or in a JSON object, but once.",
        parameters=parameters_of(CounterParameters),
        body=forms_of(CounterParameters) if method == "post" else None,
    )


def _hello(method: str) -> dict[str, Any]:
    greeting = record("message", {"message": {"const": "Hello World"}})
    return operation(
        "counter",
        f"{method}Hello",
        "An ordinary response to compare a stream with",
        {"200": answer("A greeting.", json_of(greeting))},
    )


_STATUS = json_of(record("status", {"status": {"const": "ok"}}))
_READY = json_of(ref("Ready"))
_UNCHANGED = answer("It has not changed.")

PATHS: dict[str, Any] = {
    "/": {
        "get": _service(
            "page",
            "The page on which to try the service",
            {"200": answer("The page.", {"text/html": {"schema": TEXT}})},
            ("404",),
            description="Not there (404) unless in development mode or with `SSEFLASK_PAGE=true`.",
        )
    },
    "/static/sse.js": {
        "get": _service(
            "clientModule",
            "The client module for browsers and Node",
            {
                "200": answer("An ES module.", {"text/javascript": {"schema": TEXT}}),
                "304": _UNCHANGED,
            },
        )
    },
    "/sse/v1": {method: _counter(method) for method in ("get", "post")},
    "/sse/no_sse": {method: _hello(method) for method in ("get", "post")},
    "/session": {
        "post": operation(
            "session",
            "openSession",
            "Trade a token for a cookie, for pages of this server",
            {"204": answer("The cookie ends when the token does.", None, "Set-Cookie")},
            (*BODY, "401", "403"),
            description="The token is in the header `Authorization`, or in the body; not in the "
            "address.",
            body=forms_of(SessionParameters),
        ),
        "delete": operation(
            "session",
            "closeSession",
            "Delete the cookie in the browser",
            {"204": answer("Deleted.", None, "Set-Cookie")},
            ("403",),
        ),
    },
    "/healthz": {
        "get": _service(
            "alive", "Whether the process answers", {"200": answer("It does.", _STATUS)}
        )
    },
    "/readyz": {
        "get": _service(
            "ready",
            "Whether requests may be sent here, and the state of the stores",
            {
                "200": answer("They may.", _READY),
                "503": answer("The worker shuts down, or a required store is away.", _READY),
            },
            description="With `stores=required` in the query it is 503 while a store can't be "
            "read. That is for routers that send requests on if all machines are refused.",
            parameters=[
                parameter(
                    *("query", "stores", TEXT),
                    "`required`: not ready while a store can't be read.",
                )
            ],
        )
    },
    "/metrics": {
        "get": _service(
            "figures",
            "The figures of all workers, for Prometheus",
            {
                "200": answer(
                    "Prometheus' text format, or OpenMetrics if the client prefers it.",
                    {
                        "text/plain": {"schema": TEXT},
                        "application/openmetrics-text": {"schema": TEXT},
                    },
                )
            },
            ("400", "401", "403"),
            description="Needs a token with the right `subscribe` for the channel `sseflask.live`.",
            security=TOKEN,
        )
    },
    "/openapi.json": {
        "get": _service(
            "contract",
            "This document",
            {
                "200": answer("The document.", json_of({"type": "object"}), "Cache-Control"),
                "304": _UNCHANGED,
            },
        )
    },
}
