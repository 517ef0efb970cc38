"""Parameters as the routes' models have them: names, types, bounds and defaults; and their prose.

What a model can't say of a value, as it is checked elsewhere, is in `_MORE`.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from sseflask.routes.running import MOST_GRACE

__all__ = ["SAYS", "cursor", "form_fields", "json_object", "query"]

Schema = dict[str, Any]

#: What each parameter means.
SAYS = {
    "count": "How many events the whole stream has.",
    "format": "What the stream is made of; see the description of the response.",
    "heartbeat": "`early`: the headers and a heartbeat are sent at once, and do not wait for the "
    "first event. A failure is then always in band.",
    "idempotency_key": "The same as the header `Idempotency-Key`, for clients that can't set it. "
    "The header wins.",
    "interval": "Seconds between two events.",
    "last_event_id": "The same as the header `Last-Event-ID`, for clients that can't set it. The "
    "header wins. Also spelled `lastEventId` or `lastEventID`.",
    "messages": "The whole conversation, in the place of the two texts: OpenAI's messages, or the "
    "AI SDK's (`useChat`). As text it is JSON.",
    "model": "Passed on to the upstream. Empty for the service's own default.",
    "on_disconnect": "What becomes of the run when nobody reads it any more: `cancel`, `continue`, "
    "or the seconds that it goes on.",
    "system_prompt": "The system's message; none if it is empty.",
    "token": "The token, if it is not in the header `Authorization`.",
    "user_message": "The user's message.",
}

_RUN_CURSOR = r"^(earliest|[0-9a-f]{32}\.(0|[1-9][0-9]{0,29}))?$"

#: By model and name or by name alone: what the models check elsewhere, or in functions.
_MORE: dict[str, Schema] = {
    "idempotency_key": {"pattern": r"^[\x21-\x7e]{1,255}$"},
    "on_disconnect": {
        "anyOf": [
            {"enum": ["cancel", "continue"]},
            {"type": "number", "minimum": 0, "maximum": MOST_GRACE},
        ]
    },
    "CounterParameters.last_event_id": {"pattern": "^(earliest|[0-9]{1,16})?$"},
    "CompletionParameters.last_event_id": {"pattern": _RUN_CURSOR},
    "ViewParameters.last_event_id": {"pattern": _RUN_CURSOR},
    "messages": {
        "type": "array",
        "minItems": 1,
        "items": {"$ref": "#/components/schemas/Message"},
    },
}


#: Bounds by their names in a field and in JSON Schema. Of a value that passes a function first
#: Pydantic's own schema has none, or calls them as the field does, depending on its version.
_BOUNDS = {"ge": "minimum", "le": "maximum", "max_length": "maxLength"}


def query(model: type[BaseModel]) -> list[Schema]:
    """The parameters of a model as those of a query.

    Args:
        model: one that `sseflask.web.parameters` reads.
    """
    return [
        {
            "name": name,
            "in": "query",
            "description": SAYS[name],
            **(
                {"content": {"application/json": {"schema": schema}}}
                if schema.get("type") == "array"
                else {"schema": schema}
            ),
        }
        for name, schema in _fields(model).items()
    ]


def json_object(model: type[BaseModel]) -> Schema:
    """The same parameters as the fields of a JSON object.

    Args:
        model: one that `sseflask.web.parameters` reads.
    """
    fields = _fields(model)
    return {
        "type": "object",
        "properties": {
            name: {**_or_null(model, name, schema), "description": SAYS[name]}
            for name, schema in fields.items()
        },
    }


def form_fields(model: type[BaseModel]) -> Schema:
    """The same parameters as the fields of a form, in which JSON is text.

    Args:
        model: one that `sseflask.web.parameters` reads.
    """
    text = {"type": "string", "contentMediaType": "application/json"}
    fields = {
        name: text if schema.get("type") == "array" else schema
        for name, schema in _fields(model).items()
    }
    return {
        "type": "object",
        "properties": {
            name: {**schema, "description": SAYS[name]} for name, schema in fields.items()
        },
    }


def _or_null(model: type[BaseModel], name: str, schema: Schema) -> Schema:
    """In JSON what may be left out may be null as well, except a list; no cursor may be null."""
    default = model.model_fields[name].default
    optional = (default is None and schema.get("type") != "array") or name == "last_event_id"
    return {"anyOf": [schema, {"type": "null"}]} if optional else schema


def cursor(model: type[BaseModel]) -> Schema:
    """What the header ``Last-Event-ID`` may hold where a model's parameters are read."""
    return _fields(model)["last_event_id"]


def _fields(model: type[BaseModel]) -> dict[str, Schema]:
    described = model.model_json_schema()["properties"]
    return {name: _field(model, name, schema) for name, schema in described.items()}


def _field(model: type[BaseModel], name: str, schema: Schema) -> Schema:
    more = _MORE.get(f"{model.__name__}.{name}") or _MORE.get(name) or {}
    known = {key: value for key, value in schema.items() if key not in ("title", "type", *_BOUNDS)}
    for bound in model.model_fields[name].metadata:
        known |= {_BOUNDS[key]: getattr(bound, key) for key in _BOUNDS if hasattr(bound, key)}
    # A parameter that may be left out is never null.
    kinds = [each for each in known.pop("anyOf", ()) if each.get("type") != "null"]
    kind = kinds[0] if kinds else {"type": schema["type"]}
    if known.get("default", 0) is None:
        del known["default"]
    if "anyOf" in more:
        kind = {}
    return {**kind, **known, **more}
