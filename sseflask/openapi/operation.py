"""One operation of the document, and the parts that several have."""

from __future__ import annotations

from typing import Any

from sseflask.openapi.components import CURSOR_SAYS, header, refusals
from sseflask.web.idempotency import HEADER

Schema = dict[str, Any]

#: What a request needs: nothing; a token; a token, unless all is public or the demo model answers.
ANYBODY: list[dict[str, list[str]]] = []
TOKEN: list[dict[str, list[str]]] = [{"bearer": []}, {"access_token": []}, {"cookie": []}]
MAYBE_TOKEN: list[dict[str, list[str]]] = [{}, *TOKEN]

#: The refusals of a route that reads a body.
BODY = ("400", "408", "413", "415", "501")

IDEMPOTENCY_KEY: Schema = {
    "name": HEADER,
    "in": "header",
    "description": "The same key again is the same request: nothing is done twice.",
    "schema": {"type": "string", "pattern": r"^[\x21-\x7e]{1,255}$"},
}


def operation(
    id: str,
    tag: str,
    summary: str,
    answers: dict[str, Schema],
    refused: tuple[str, ...] = (),
    *,
    description: str = "",
    parameters: list[Schema] | None = None,
    body: dict[str, Schema] | None = None,
    body_required: bool = False,
    security: list[dict[str, list[str]]] = ANYBODY,
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
    return {**made, "responses": {**answers, **refusals(*refused)}, "security": security}


def answer(
    says: str, content: Schema | None = None, headers: dict[str, Schema] | None = None
) -> Schema:
    """A successful response; its content is by media type."""
    made: Schema = {"description": says, "headers": headers or header()}
    return {**made, "content": content} if content else made


def json_answer(says: str, schema: Schema, headers: dict[str, Schema] | None = None) -> Schema:
    """A successful response with one JSON document."""
    return answer(says, {"application/json": {"schema": schema}}, headers)


def last_event_id(schema: Schema) -> Schema:
    """The header of a client that resumes."""
    schema = {key: value for key, value in schema.items() if key != "default"}
    return {"name": "Last-Event-ID", "in": "header", "description": CURSOR_SAYS, "schema": schema}
