"""One operation of the document, and the parts of it that recur."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from sseflask.openapi.components import CURSOR_SAYS, header, refusals
from sseflask.openapi.fields import form_fields, json_object
from sseflask.web.idempotency import HEADER as IDEMPOTENCY_KEY

__all__ = [
    "ANYBODY",
    "BODY",
    "MAYBE_TOKEN",
    "TOKEN",
    "answer",
    "forms_of",
    "idempotency_key",
    "json_answer",
    "last_event_id",
    "operation",
]

Schema = dict[str, Any]

#: What a request needs: nothing; a token; a token, unless all is public or the demo model answers.
ANYBODY: list[dict[str, list[str]]] = []
TOKEN: list[dict[str, list[str]]] = [{"bearer": []}, {"access_token": []}, {"cookie": []}]
MAYBE_TOKEN: list[dict[str, list[str]]] = [{}, *TOKEN]

#: The refusals of a route that reads a body.
BODY = ("400", "408", "413", "415", "501")


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
    """An operation.

    Args:
        id: its name for generated clients.
        tag: the group that it is of.
        summary: what it does.
        answers: by status, when all is well.
        refused: the statuses of its refusals.
        description: more than the summary, in CommonMark.
        parameters: in path, query and header.
        body: by media type.
        body_required: whether there must be one.
        security: what it needs.
    """
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
    """A response when all is well.

    Args:
        says: what it means.
        content: its body, by media type.
        headers: those that it may have.
    """
    made: Schema = {"description": says, "headers": headers or header()}
    if content:
        made["content"] = content
    return made


def json_answer(says: str, schema: Schema, headers: dict[str, Schema] | None = None) -> Schema:
    """The same with one JSON document."""
    return answer(says, {"application/json": {"schema": schema}}, headers)


def forms_of(model: type[BaseModel]) -> dict[str, Schema]:
    """The body in which a model's parameters may come: as JSON or as a form.

    Args:
        model: one that `sseflask.web.parameters` reads.
    """
    form = {"schema": form_fields(model)}
    return {
        "application/json": {"schema": json_object(model)},
        "application/x-www-form-urlencoded": form,
        "multipart/form-data": form,
    }


def last_event_id(schema: Schema) -> Schema:
    """The header of a client that comes back.

    Args:
        schema: what a cursor of this route looks like.
    """
    told = {key: value for key, value in schema.items() if key != "default"}
    return {"name": "Last-Event-ID", "in": "header", "description": CURSOR_SAYS, "schema": told}


def idempotency_key() -> Schema:
    """The header that makes a repetition of a request one."""
    return {
        "name": IDEMPOTENCY_KEY,
        "in": "header",
        "description": "The same key again is the same request: nothing is done twice.",
        "schema": {"type": "string", "pattern": r"^[\x21-\x7e]{1,255}$"},
    }
