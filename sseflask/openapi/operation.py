"""One operation of the document; headers, refusals and tokens, which operations have in common."""

from __future__ import annotations

from typing import Any

from sseflask.auth.presented import NAME
from sseflask.channels.event_frames import EARLIEST
from sseflask.openapi.schemas import TEXT, Schema, ref
from sseflask.web.idempotency import HEADER as IDEMPOTENCY_HEADER


def _header(says: str, **schema: Any) -> Schema:
    return {"description": says, "schema": {**TEXT, **schema}}


HEADERS: dict[str, Schema] = {
    "X-Request-Id": {
        **_header(
            "The request's own, or a new one; it is in the log.", pattern=r"^[A-Za-z0-9._~:/+=@-]+$"
        ),
        "required": True,
    },
    "Retry-After": _header("Seconds after which the same request may succeed.", pattern="^[0-9]+$"),
    "X-Should-Retry": _header(
        "`false`: the same request would fail again. OpenAI's clients obey it."
    ),
    "X-Run-Id": _header("The run's id, for `/runs/{id}`.", pattern="^[0-9a-f]{32}$"),
    "Last-Event-ID": _header("The cursor at which the stream begins."),
    "Idempotency-Replayed": _header("The request had been sent before.", enum=["true"]),
    "Location": _header("The stream that begins with what was published.", format="uri-reference"),
    "WWW-Authenticate": _header("How to send a token (RFC 6750).", pattern="^Bearer "),
    "Cache-Control": _header("`no-store, no-transform` on streams."),
    "Set-Cookie": _header(f"`{NAME}`, over TLS `__Host-{NAME}`: HttpOnly, SameSite=Strict."),
    "X-Upstream-Request-Id": _header("The upstream's id of its answer."),
    "X-Vercel-AI-UI-Message-Stream": _header("With `format=ui`.", enum=["v1"]),
}


def answer(says: str, content: Schema | None = None, *headers: str) -> Schema:
    """A response: its content by media type; its `HEADERS`, beside the request's id."""
    names = ("X-Request-Id", *headers)
    made: Schema = {
        "description": says,
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in names},
    }
    return {**made, "content": content} if content else made


def json_of(schema: Schema) -> Schema:
    return {"application/json": {"schema": schema}}


def _refusal(says: str, *headers: str) -> Schema:
    return answer(says, json_of(ref("Error")), *headers)


_REFUSALS: dict[str, Schema] = {
    "400": _refusal("The request does not fit; `param` names what is wrong.", "X-Should-Retry"),
    "401": _refusal("There is no token, or it is not valid or has expired.", "WWW-Authenticate"),
    "403": _refusal("The token lacks a right, or a page of another site has sent the request."),
    "404": _refusal("It does not exist, or it belongs to another subject."),
    "408": _refusal("The request's body did not come in time."),
    "409": _refusal("The `Idempotency-Key` was used for other content.", "X-Should-Retry"),
    "413": _refusal("The body or the prompt is too long, or holds too many values."),
    "414": answer(
        "The address is too long: a line of 8 KiB at most. By gunicorn, in HTML.",
        {"text/html": {"schema": TEXT}},
    ),
    "415": _refusal("A body of another kind, compressed, or not in UTF-8."),
    "429": _refusal("Too many requests or runs of this subject.", "Retry-After"),
    "500": _refusal("The server failed; its log has the reason."),
    "501": _refusal("The body has another `Transfer-Encoding` than `chunked`."),
    "503": _refusal(
        "No room now, a store that can't be written, or the server is shutting down. An "
        "EventSource gets 200 and a stream that only has it reconnect later.",
        "Retry-After",
    ),
    "4XX": _refusal("The upstream refused it; its status and its error."),
    "5XX": _refusal("The upstream failed, or can't be reached.", "Retry-After", "X-Run-Id"),
}

#: The refusals, by the names that operations refer to.
RESPONSES = {f"Refused{status}": response for status, response in _REFUSALS.items()}

SECURITY: dict[str, Schema] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A token that `sseflask token` has made: HS256, with `sub`, `exp`, and the "
        "rights `publish`, `subscribe` and `complete`.",
    },
    "access_token": {
        "type": "apiKey",
        "in": "query",
        "name": "access_token",
        "description": "The same token, for an EventSource. Logs of proxies will show it.",
    },
    "cookie": {
        "type": "apiKey",
        "in": "cookie",
        "name": NAME,
        "description": f"The same token, by `POST /session`. Over TLS it is called `__Host-{NAME}`."
        " Only pages of this server can use it.",
    },
}

#: What a request needs: a token; a token, unless all is public or the demo model answers.
TOKEN: list[dict[str, list[str]]] = [{name: []} for name in SECURITY]
MAYBE_TOKEN: list[dict[str, list[str]]] = [{}, *TOKEN]

#: The refusals of a route that reads a body.
BODY = ("400", "408", "413", "415", "501")


def parameter(where: str, name: str, schema: Schema, says: str = "", **more: bool) -> Schema:
    """A parameter; one of the path is always required."""
    made: Schema = {"in": where, "name": name, "schema": schema, **more}
    if where == "path":
        made["required"] = True
    return {**made, "description": says} if says else made


IDEMPOTENCY_KEY = parameter(
    "header",
    IDEMPOTENCY_HEADER,
    {**TEXT, "pattern": r"^[\x21-\x7e]{1,255}$"},
    "The same key again is the same request: nothing is done twice.",
)


def last_event_id(schema: Schema) -> Schema:
    says = f"The id of the last event that the client has got, or `{EARLIEST}`."
    known = {key: value for key, value in schema.items() if key != "default"}
    return parameter("header", "Last-Event-ID", known, says)


def operation(
    tag: str,
    id: str,
    summary: str,
    answers: dict[str, Schema],
    refused: tuple[str, ...] = (),
    *,
    description: str = "",
    parameters: list[Schema] | None = None,
    body: dict[str, Schema] | None = None,
    body_required: bool = False,
    security: list[dict[str, list[str]]] | None = None,
) -> Schema:
    """An operation; answers are by status, ``refused`` has the statuses of its refusals."""
    made: Schema = {"operationId": id, "tags": [tag], "summary": summary}
    if description:
        made["description"] = description
    if parameters:
        made["parameters"] = parameters
        refused = (*refused, "414")
    if body:
        made["requestBody"] = {"required": body_required, "content": body}
    refusals = {
        status: {"$ref": f"#/components/responses/Refused{status}"}
        for status in sorted({*refused, "500"})
    }
    return {**made, "responses": {**answers, **refusals}, "security": security or []}
