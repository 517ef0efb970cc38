"""The routes of completions."""

from __future__ import annotations

from functools import partial
from typing import Any

from sseflask.openapi.fields import forms_of, parameters_of
from sseflask.openapi.operation import (
    BODY,
    IDEMPOTENCY_KEY,
    MAYBE_TOKEN,
    answer,
    json_of,
    operation,
    parameter,
)
from sseflask.openapi.schemas import TEXT, event_stream, record, ref
from sseflask.routes.begin_run import RunParameters
from sseflask.routes.completions import CompletionParameters
from sseflask.routes.runs import ViewParameters

_HEADERS = ("X-Run-Id", "Idempotency-Replayed", "Cache-Control", "X-Upstream-Request-Id")
_OBJECT = json_of(ref("UpstreamObject"))

_SHOWN = {
    "200": answer(
        "`chunks`: OpenAI's own chunks, then `[DONE]`. `text`: the text. `events`: `reasoning`, "
        "`text`, `tool_call`, `usage` and more, each with JSON. `ui`: the AI SDK's UI message "
        "stream. `text` and `events` end with `done` or `failure`. Each event's id is `<run>.<n>`.",
        {**event_stream("RunEvent"), **_OBJECT},
        *_HEADERS,
        "X-Vercel-AI-UI-Message-Stream",
    ),
    "204": answer(
        "Nothing is left after the cursor; to an EventSource the end. Also the answer to a "
        "prefetch.",
        None,
        "X-Run-Id",
    ),
}
_RIGHTS = ("401", "403")
_UPSTREAM = (*_RIGHTS, "404", "409", "429", "4XX", "5XX", "503")

_of_completions = partial(operation, "completions", security=MAYBE_TOKEN)
_of_openai = partial(operation, "OpenAI's API", security=MAYBE_TOKEN)


def _completion(method: str, name: str) -> dict[str, Any]:
    return _of_completions(
        f"{method}{name}",
        "Begin a completion, or resume one",
        _SHOWN,
        (*BODY, *_UPSTREAM),
        description="Begins a run and streams it. With a cursor the stream of that run goes on, "
        "without a request to the upstream. Each parameter may come in the query, in a form or in "
        "a JSON object, but once. Needs no token while the demo model answers.",
        parameters=[*parameters_of(CompletionParameters), IDEMPOTENCY_KEY],
        body=forms_of(CompletionParameters) if method == "post" else None,
    )


def _passed_on(id: str, summary: str, required: str) -> dict[str, Any]:
    messages = {"type": "array", "items": ref("Message")}
    fields = {"model": TEXT, "messages": messages, "stream": {"type": "boolean"}}
    streamed = "The upstream's answer; a stream with `stream: true`."
    return _of_openai(
        id,
        summary,
        {"200": answer(streamed, {**event_stream("RunEvent"), **_OBJECT}, *_HEADERS)},
        (*BODY, *_UPSTREAM),
        description="The body goes to the upstream unchanged, with parameters that this server "
        "does not know too. In addition there are `X-Run-Id`, ids and `Idempotency-Key`.",
        parameters=[*parameters_of(RunParameters), IDEMPOTENCY_KEY],
        body=json_of(record(required, fields)),
        body_required=True,
    )


_RUN = parameter(
    "path",
    "id",
    # Anything else is an id as well, of no run.
    {**TEXT, "minLength": 1, "examples": ["5c85c0d9a5ba4161d74f7977e8ac36eb"]},
    "`X-Run-Id` of the response that began it.",
)

PATHS: dict[str, Any] = {
    **{
        path: {method: _completion(method, name) for method in ("get", "post")}
        for path, name in (
            ("/sse/openai_out", "Completion"),
            ("/sse/async_openai_out", "CompletionByItsOtherName"),
        )
    },
    "/runs/{id}": {
        "get": _of_completions(
            "viewRun",
            "Stream a run, from its start or after a cursor",
            _SHOWN,
            ("400", *_UPSTREAM),
            description="While it goes on and for `SSEFLASK_RUN_SECONDS` after its end, in any "
            "format, for any number of viewers. A run of `stream: false` is given as JSON. A run "
            "that failed before its first frame is given as that error. With `format=ui` a run "
            "that is not there is 204.",
            parameters=[_RUN, *parameters_of(ViewParameters)],
        ),
        "delete": _of_completions(
            "stopRun",
            "Stop a run",
            {
                "200": answer(
                    "It has ended: `stopped` now or before, or by itself.",
                    json_of(ref("StoppedRun")),
                    "X-Run-Id",
                )
            },
            ("400", *_RIGHTS, "404", "503"),
            parameters=[_RUN],
        ),
    },
    "/v1/chat/completions": {
        "post": _passed_on("chatCompletions", "OpenAI's Chat Completions", "messages")
    },
    "/v1/responses": {"post": _passed_on("responses", "OpenAI's Responses", "")},
    "/v1/models": {
        "get": _of_openai(
            "models",
            "The upstream's models",
            {"200": answer("A list of models.", _OBJECT)},
            ("400", *_RIGHTS, "429", "4XX", "5XX", "503"),
        )
    },
}
