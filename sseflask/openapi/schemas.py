"""The schemas of bodies, and of the events of each stream with examples of the wire.

OpenAPI 3.1 describes a body only as one text. So the schema of a stream describes the text or one
event, for tools that read such a body event by event.
"""

from __future__ import annotations

from typing import Any

from sseflask.channels.event_frames import RESERVED
from sseflask.counters.counts import GAPS
from sseflask.event import MOST_RETRY
from sseflask.routes.publication import MAX_EVENTS

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
JSON_TEXT: Schema = {**TEXT, "contentMediaType": "application/json"}
_TEXT_OR_NULL: Schema = {"type": ["string", "null"]}


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def record(required: str, properties: dict[str, Schema], **more: Any) -> Schema:
    """An object; ``required`` has the names of fields, with spaces between them."""
    return {"type": "object", "required": required.split(), "properties": properties, **more}


def _event(type: Schema, data: Schema, says: str, **more: Schema) -> Schema:
    return record("event data", {"event": type, "data": data, **more}, description=says)


def _json(schema: Schema) -> Schema:
    return {**JSON_TEXT, "contentSchema": schema}


def _pattern(pattern: str) -> Schema:
    return {**TEXT, "pattern": pattern}


_FAILURE = _event(
    {"const": "failure"},
    _json(ref("Error")),
    "The last event of a stream that failed. Without an `id` only this connection has failed.",
)
_NUMBER = _pattern("^[0-9]+$")
_RUN_EVENT_ID = _pattern(r"^([0-9a-f]{32}\.[0-9]+)?$")

#: One event of each kind of stream.
EVENTS: dict[str, Schema] = {
    "CounterEvent": {
        "anyOf": [
            _event({"const": "message"}, _NUMBER, "A number, which is its id too.", id=_NUMBER),
            _FAILURE,
        ]
    },
    "ChannelEvent": {
        "anyOf": [
            _event(
                {**TEXT, "not": {"enum": list(RESERVED)}},
                TEXT,
                "What was published: text as it is, anything else as JSON. The `id` of an event "
                "that `until` has named ends with `.end`.",
                id=_pattern(r"^[a-z0-9]+-[0-9]+(\.end)?$"),
                retry={"type": "integer", "minimum": 0},
            ),
            _event(
                {"const": "gap"},
                _json(ref("Gap")),
                "Some of what was published after the cursor is not there any more.",
            ),
            _FAILURE,
        ]
    },
    "RunEvent": {
        "anyOf": [
            _event(
                {"const": "done"},
                _json({"type": "object", "required": ["finish_reason"]}),
                "The end of a run, in the formats `text` and `events`.",
                id=_RUN_EVENT_ID,
            ),
            _FAILURE,
            _event(
                {**TEXT, "not": {"enum": ["done", "failure"]}},
                TEXT,
                "A piece of the answer, in the requested format.",
                id=_RUN_EVENT_ID,
            ),
        ]
    },
}

_RUN = "5c85c0d9a5ba4161d74f7977e8ac36eb"

#: Examples of the wire, by the same names.
EXAMPLES: dict[str, dict[str, str]] = {
    "CounterEvent": {
        "numbers": "id: 0\ndata: 0\n\nid: 1\ndata: 1\n\n",
        "silence": ": ping\nid: 0\ndata: 0\n\n",
    },
    "ChannelEvent": {
        "events": 'id: k3v9m2xa-2\nevent: new\ndata: {"order":7}\n\n',
        "the end": "id: k3v9m2xa-3.end\nevent: done\ndata: ready\n\n",
        "gap": 'event: gap\ndata: {"reason":"trimmed","channel":"orders.*",'
        '"last_event_id":"k3v9m2xa-1","oldest":"k3v9m2xa-9","newest":"k3v9m2xa-9"}\n\n'
        "id: k3v9m2xa-9\ndata: hello\n\n",
        "refused for now, to an EventSource": ": This server has as many subscribers as it can "
        "take; please try again.\nretry: 6100\n",
    },
    "RunEvent": {
        "chunks": f'id: {_RUN}.1\ndata: {{"object":"chat.completion.chunk",'
        '"choices":[{"index":0,"delta":{"content":"Hello"}}]}\n\n'
        f"id: {_RUN}.2\ndata: [DONE]\n\n",
        "text": f"id: {_RUN}.1\ndata: Hello\n\n"
        f'id: {_RUN}.2\nevent: done\ndata: {{"finish_reason":"stop"}}\n\n',
        "events": f'id: {_RUN}.1\nevent: reasoning\ndata: {{"text":"Think."}}\n\n'
        f'id: {_RUN}.2\nevent: text\ndata: {{"text":"Hello"}}\n\n'
        f'id: {_RUN}.3\nevent: done\ndata: {{"finish_reason":"stop"}}\n\n',
        "ui": 'data: {"type":"start"}\n\ndata: {"type":"text-delta","id":"0","delta":"Hello"}\n\n'
        f"id: {_RUN}.2\ndata: [DONE]\n\n",
        "failure": f"id: {_RUN}.2\nevent: failure\n"
        'data: {"error":{"message":"The upstream was silent for too long; please try again later.",'
        '"type":"server_error","param":null,"code":"upstream_timeout"}}\n\n',
    },
}

#: The state of a store in `Ready`.
_STORE: dict[str, Schema] = {
    "log": {"enum": ["available", "read_only", "unavailable", "busy"]},
    "refused": {**TEXT, "description": "What gets 503, if something does."},
    "reason": {**TEXT, "description": "What the server that keeps it says."},
    "since": {**TEXT, "format": "date-time"},
    "warning": {**TEXT, "description": "What the operator should change."},
}

SCHEMAS: dict[str, Schema] = {
    "Error": record(
        "error",
        {
            "error": record(
                "message type param code",
                {
                    "message": {**TEXT, "description": "What was wrong, and what to do."},
                    "type": {**_TEXT_OR_NULL, "description": "The kind of error."},
                    "param": {**_TEXT_OR_NULL, "description": "The parameter at fault."},
                    "code": {
                        "type": ["string", "integer", "null"],
                        "description": "A short name, for programs.",
                    },
                },
            )
        },
        description="Every error, in the shape of OpenAI's API. One that an upstream has given "
        "keeps its further fields.",
        examples=[
            {
                "error": {
                    "message": "The parameter count is not valid: it must be a whole number in "
                    "digits.",
                    "type": "invalid_request_error",
                    "param": "count",
                    "code": "invalid_value",
                }
            }
        ],
    ),
    "Gap": record(
        "reason channel last_event_id oldest newest",
        {
            "reason": {"enum": list(GAPS)},
            "channel": {**TEXT, "description": "The name or pattern that it concerns."},
            "last_event_id": {**TEXT, "description": "What the client presented."},
            "oldest": {**_TEXT_OR_NULL, "description": "The id of the oldest stored event."},
            "newest": {**_TEXT_OR_NULL, "description": "The id of the newest one."},
        },
    ),
    "Publication": record(
        "data",
        {
            "data": {"description": "Text is sent as it is, anything else as JSON."},
            "event": {
                **_TEXT_OR_NULL,
                "pattern": r"^[^\r\n]*$",
                "not": {"enum": list(RESERVED)},
                "description": "Its type; `message` if there is none.",
            },
            "retry": {
                "type": ["integer", "null"],
                "minimum": 0,
                "maximum": MOST_RETRY,
                "description": "Milliseconds that clients wait before they connect again.",
            },
        },
        description="One event. Its id is given by the server.",
        additionalProperties=False,
        examples=[{"data": {"order": 7}, "event": "new"}],
    ),
    "Publications": {
        "type": "array",
        "description": "Stored together, or not at all.",
        "minItems": 1,
        "maxItems": MAX_EVENTS,
        "items": ref("Publication"),
    },
    "Published": {
        "type": "object",
        "description": "`id` for one event, `ids` for an array.",
        "properties": {
            "id": {**TEXT, "examples": ["k3v9m2xa-1"]},
            "ids": {"type": "array", "minItems": 1, "items": TEXT},
        },
        "oneOf": [{"required": ["id"]}, {"required": ["ids"]}],
        "additionalProperties": False,
    },
    "Message": record(
        "role",
        {
            "role": {**TEXT, "examples": ["user"]},
            "content": {"description": "Text, or a list of parts.", "examples": ["Hello"]},
        },
    ),
    "StoppedRun": record(
        "id status",
        {"id": TEXT, "status": {"enum": ["stopped", "finished", "failed", "cancelled"]}},
    ),
    "Ready": record(
        "status",
        {
            "status": {"enum": ["ready", "unavailable", "draining"]},
            "channels": {
                "type": "object",
                "properties": {
                    **_STORE,
                    "history": {"enum": ["memory", "ephemeral", "disk"]},
                    "meaning": TEXT,
                },
            },
            "completions": {"type": "object", "properties": _STORE},
        },
    ),
    "UpstreamObject": {"type": "object", "description": "The upstream's response, unchanged."},
    **EVENTS,
}


def event_stream(name: str) -> Schema:
    """The content of a response that is a stream of one of `EVENTS`."""
    body = {**TEXT, "description": "The body, as text."}
    examples = {
        case.partition(",")[0].replace(" ", "-"): {"summary": case, "value": value}
        for case, value in EXAMPLES[name].items()
    }
    schema = {"oneOf": [body, ref(name)]}
    return {"text/event-stream": {"schema": schema, "examples": examples}}
