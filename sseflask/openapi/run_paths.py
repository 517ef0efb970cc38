"""The routes of completions."""

from __future__ import annotations

from typing import Any

from sseflask.openapi.components import header
from sseflask.openapi.fields import cursor, forms_of, query
from sseflask.openapi.operation import (
    BODY,
    IDEMPOTENCY_KEY,
    MAYBE_TOKEN,
    answer,
    json_answer,
    last_event_id,
    operation,
)
from sseflask.openapi.streams import event_stream
from sseflask.routes.begin_run import RunParameters
from sseflask.routes.completions import CompletionParameters
from sseflask.routes.runs import ViewParameters

_HEADERS = header("X-Run-Id", "Idempotency-Replayed", "Cache-Control", "X-Upstream-Request-Id")
_OBJECT = {"application/json": {"schema": {"$ref": "#/components/schemas/UpstreamObject"}}}

_FORMATS = (
    "`chunks`: OpenAI's own chunks, then `[DONE]`. `text`: the text. `events`: `reasoning`, "
    "`text`, `tool_call`, `usage` and more, each with JSON. `ui`: the AI SDK's UI message stream. "
    "`text` and `events` end with `done` or `failure`. Each event's id is `<run>.<n>`."
)
_STREAM = answer(
    _FORMATS,
    {**event_stream("RunEvent"), **_OBJECT},
    {**_HEADERS, **header("X-Vercel-AI-UI-Message-Stream")},
)
_NOTHING = answer(
    "Nothing is left after the cursor; to an EventSource the end. Also the answer to a prefetch.",
    headers=header("X-Run-Id"),
)
_RIGHTS = ("401", "403")
_UPSTREAM = (*_RIGHTS, "404", "409", "429", "4XX", "5XX", "503")


def _completion(method: str, name: str) -> dict[str, Any]:
    parameters = [
        *query(CompletionParameters),
        last_event_id(cursor(CompletionParameters)),
        IDEMPOTENCY_KEY,
    ]
    return operation(
        f"{method}{name}",
        "completions",
        "Begin a completion, or resume one",
        {"200": _STREAM, "204": _NOTHING},
        (*BODY, *_UPSTREAM),
        description="Begins a run and streams it. With a cursor the stream of that run goes on, "
        "without a request to the upstream. Each parameter may come in the query, in a form or in "
        "a JSON object, but once. Needs no token while the demo model answers.",
        parameters=parameters,
        body=forms_of(CompletionParameters) if method == "post" else None,
        security=MAYBE_TOKEN,
    )


def _openai(id: str, summary: str, required: list[str]) -> dict[str, Any]:
    schema = {
        "type": "object",
        "required": required,
        "properties": {
            "model": {"type": "string"},
            "messages": {"type": "array", "items": {"$ref": "#/components/schemas/Message"}},
            "stream": {"type": "boolean"},
        },
    }
    return operation(
        id,
        "OpenAI's API",
        summary,
        {
            "200": answer(
                "The upstream's answer; a stream with `stream: true`.",
                {**event_stream("RunEvent"), **_OBJECT},
                _HEADERS,
            )
        },
        (*BODY, *_UPSTREAM),
        description="The body goes to the upstream unchanged, with parameters that this server "
        "does not know too. In addition there are `X-Run-Id`, ids and `Idempotency-Key`.",
        parameters=[*query(RunParameters), IDEMPOTENCY_KEY],
        body={"application/json": {"schema": schema}},
        body_required=True,
        security=MAYBE_TOKEN,
    )


_RUN = {
    "name": "id",
    "in": "path",
    "required": True,
    "description": "`X-Run-Id` of the response that began it.",
    # Anything else is an id as well, of no run.
    "schema": {"type": "string", "minLength": 1, "examples": ["5c85c0d9a5ba4161d74f7977e8ac36eb"]},
}

PATHS: dict[str, Any] = {
    **{
        path: {method: _completion(method, name) for method in ("get", "post")}
        for path, name in (
            ("/sse/openai_out", "Completion"),
            ("/sse/async_openai_out", "CompletionByItsOtherName"),
        )
    },
    "/runs/{id}": {
        "get": operation(
            "viewRun",
            "completions",
            "Stream a run, from its start or after a cursor",
            {"200": _STREAM, "204": _NOTHING},
            ("400", *_UPSTREAM),
            description="While it goes on and for `SSEFLASK_RUN_SECONDS` after its end, in any "
            "format, for any number of viewers. A run of `stream: false` is given as JSON. A run "
            "that failed before its first frame is given as that error. With `format=ui` a run "
            "that is not there is 204.",
            parameters=[_RUN, *query(ViewParameters), last_event_id(cursor(ViewParameters))],
            security=MAYBE_TOKEN,
        ),
        "delete": operation(
            "stopRun",
            "completions",
            "Stop a run",
            {
                "200": json_answer(
                    "It has ended: `stopped` now or before, or by itself.",
                    {"$ref": "#/components/schemas/StoppedRun"},
                    header("X-Run-Id"),
                )
            },
            ("400", *_RIGHTS, "404", "503"),
            parameters=[_RUN],
            security=MAYBE_TOKEN,
        ),
    },
    "/v1/chat/completions": {
        "post": _openai("chatCompletions", "OpenAI's Chat Completions", ["messages"])
    },
    "/v1/responses": {"post": _openai("responses", "OpenAI's Responses", [])},
    "/v1/models": {
        "get": operation(
            "models",
            "OpenAI's API",
            "The upstream's models",
            {"200": answer("A list of models.", _OBJECT)},
            ("400", *_RIGHTS, "429", "4XX", "5XX", "503"),
            security=MAYBE_TOKEN,
        )
    },
}
