"""The events of each stream: their fields, and examples of the wire.

OpenAPI 3.1 describes a body only as one text. So each schema describes the text or one event, for
tools that read such a body event by event.
"""

from __future__ import annotations

from typing import Any

from sseflask.channels.event_frames import RESERVED

Schema = dict[str, Any]

_ANY_JSON: Schema = {"type": "string", "contentMediaType": "application/json"}
_RUN_ID = r"[0-9a-f]{32}"


def _json(schema: Schema) -> Schema:
    return {**_ANY_JSON, "contentSchema": schema}


def _event(type: Schema, data: Schema, says: str, **more: Schema) -> Schema:
    return {
        "type": "object",
        "description": says,
        "required": ["event", "data"],
        "properties": {"event": type, "data": data, **more},
    }


_FAILURE = _event(
    {"const": "failure"},
    _json({"$ref": "#/components/schemas/Error"}),
    "The last event of a stream that failed. Without an `id` only this connection has failed.",
)
_RUN_EVENT_ID: Schema = {"type": "string", "pattern": rf"^({_RUN_ID}\.[0-9]+)?$"}

#: One event of each kind of stream.
EVENTS: dict[str, Schema] = {
    "CounterEvent": {
        "anyOf": [
            _event(
                {"const": "message"},
                {"type": "string", "pattern": "^[0-9]+$"},
                "A number, which is its id too.",
                id={"type": "string", "pattern": "^[0-9]+$"},
            ),
            _FAILURE,
        ]
    },
    "ChannelEvent": {
        "anyOf": [
            _event(
                {"type": "string", "not": {"enum": list(RESERVED)}},
                {"type": "string"},
                "What was published: text as it is, anything else as JSON. The `id` of an event "
                "that `until` has named ends with `.end`.",
                id={"type": "string", "pattern": r"^[a-z0-9]+-[0-9]+(\.end)?$"},
                retry={"type": "integer", "minimum": 0},
            ),
            _event(
                {"const": "gap"},
                _json({"$ref": "#/components/schemas/Gap"}),
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
                {"type": "string", "not": {"enum": ["done", "failure"]}},
                {"type": "string"},
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


def event_stream(name: str) -> Schema:
    """The content of a response that is a stream of these events.

    Args:
        name: one of `EVENTS`.
    """
    schema = {
        "oneOf": [
            {"type": "string", "description": "The body, as text."},
            {"$ref": f"#/components/schemas/{name}"},
        ]
    }
    examples = {
        case.partition(",")[0].replace(" ", "-"): {"summary": case, "value": value}
        for case, value in EXAMPLES[name].items()
    }
    return {"text/event-stream": {"schema": schema, "examples": examples}}
