"""Parameters as the routes' models define them: names, types, bounds and defaults; and their prose.

What a model does not define, as a function checks it, is in `_MORE`.
"""

from __future__ import annotations

from pydantic import BaseModel

from sseflask.openapi.operation import json_of, last_event_id, parameter
from sseflask.openapi.schemas import JSON_TEXT, Schema, ref
from sseflask.routes.begin_run import MAX_GRACE

#: What each parameter means.
SAYS = {
    "count": "How many events the whole stream has.",
    "format": "The format of the stream; see the description of the response.",
    "heartbeat": "`early`: the headers and a heartbeat are sent at once, and do not wait for the "
    "first event. A failure is then always in band.",
    "idempotency_key": "The same as the header `Idempotency-Key`, for clients that can't set it. "
    "The header wins.",
    "interval": "Seconds between two events.",
    "last_event_id": "The same as the header `Last-Event-ID`, for clients that can't set it. The "
    "header wins. Also spelled `lastEventId` or `lastEventID`.",
    "messages": "The whole conversation, instead of the two texts: OpenAI's messages, or the "
    "AI SDK's (`useChat`). As text it is JSON.",
    "model": "Passed on to the upstream. Empty for the service's own default.",
    "on_disconnect": "What happens to the run when the last viewer has left: `cancel`, `continue`, "
    "or the seconds for which it goes on.",
    "system_prompt": "The system's message; none if it is empty.",
    "token": "The token, if it is not in the header `Authorization`.",
    "user_message": "The user's message.",
}

_RUN_CURSOR = r"^(earliest|[0-9a-f]{32}\.(0|[1-9][0-9]{0,29}))?$"

#: By model and name or by name alone: what is checked outside the models, or in functions.
_MORE: dict[str, Schema] = {
    "idempotency_key": {"pattern": r"^[\x21-\x7e]{1,255}$"},
    "on_disconnect": {
        "anyOf": [
            {"enum": ["cancel", "continue"]},
            {"type": "number", "minimum": 0, "maximum": MAX_GRACE},
        ]
    },
    "CounterParameters.last_event_id": {"pattern": "^(earliest|[0-9]{1,16})?$"},
    "CompletionParameters.last_event_id": {"pattern": _RUN_CURSOR},
    "ViewParameters.last_event_id": {"pattern": _RUN_CURSOR},
    "messages": {"type": "array", "minItems": 1, "items": ref("Message")},
}

#: Bounds by their names in a field and in JSON Schema. Pydantic's own schema has none for a value
#: that a function converts first, or names them as the field does, depending on its version.
_BOUNDS = {"ge": "minimum", "le": "maximum", "max_length": "maxLength"}


def parameters_of(model: type[BaseModel]) -> list[Schema]:
    """The fields of a model as parameters of a query; a cursor also as a header."""
    made = []
    fields = _fields(model)
    for name, schema in fields.items():
        each = parameter("query", name, schema, SAYS[name])
        if schema.get("type") == "array":
            each["content"] = json_of(each.pop("schema"))
        made.append(each)
    if "last_event_id" in fields:
        made.append(last_event_id(fields["last_event_id"]))
    return made


def forms_of(model: type[BaseModel]) -> dict[str, Schema]:
    """The body that has the fields of a model: a JSON object, or a form in which JSON is text."""
    fields = _fields(model)
    form = _object(
        {name: JSON_TEXT if each.get("type") == "array" else each for name, each in fields.items()}
    )
    return {
        "application/json": _object({name: _or_null(model, name, fields[name]) for name in fields}),
        "application/x-www-form-urlencoded": form,
        "multipart/form-data": form,
    }


def _object(fields: dict[str, Schema]) -> Schema:
    described = {name: {**schema, "description": SAYS[name]} for name, schema in fields.items()}
    return {"schema": {"type": "object", "properties": described}}


def _or_null(model: type[BaseModel], name: str, schema: Schema) -> Schema:
    """In JSON an optional value may be null as well, except a list; no cursor may be null."""
    default = model.model_fields[name].default
    optional = (default is None and schema.get("type") != "array") or name == "last_event_id"
    return {"anyOf": [schema, {"type": "null"}]} if optional else schema


def _fields(model: type[BaseModel]) -> dict[str, Schema]:
    described = model.model_json_schema()["properties"]
    return {name: _field(model, name, schema) for name, schema in described.items()}


def _field(model: type[BaseModel], name: str, schema: Schema) -> Schema:
    more = _MORE.get(f"{model.__name__}.{name}") or _MORE.get(name) or {}
    known = {key: value for key, value in schema.items() if key not in ("title", "type", *_BOUNDS)}
    for bound in model.model_fields[name].metadata:
        known |= {_BOUNDS[key]: getattr(bound, key) for key in _BOUNDS if hasattr(bound, key)}
    # A parameter that may be left out is never null.
    types = [each for each in known.pop("anyOf", ()) if each.get("type") != "null"]
    type = types[0] if types else {"type": schema["type"]}
    if known.get("default", 0) is None:
        del known["default"]
    return {**({} if "anyOf" in more else type), **known, **more}
