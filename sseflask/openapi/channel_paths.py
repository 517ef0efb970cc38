"""The routes of channels."""

from __future__ import annotations

from typing import Any

from sseflask.channels.event_frames import RESERVED
from sseflask.openapi.components import header
from sseflask.openapi.fields import SAYS
from sseflask.openapi.operation import (
    BODY,
    IDEMPOTENCY_KEY,
    MAYBE_TOKEN,
    TOKEN,
    answer,
    json_answer,
    last_event_id,
    operation,
)
from sseflask.openapi.streams import event_stream
from sseflask.routes.channels import MAX_CHANNELS, MAX_TYPE, MAX_TYPES, MAX_WILDCARDS

_SEGMENT = "[A-Za-z0-9_:-]*"
_NAME = {"type": "string", "pattern": r"^[A-Za-z0-9_.:-]{1,128}$", "examples": ["orders.eu"]}
_PATTERN = {
    "type": "string",
    "minLength": 1,
    "maxLength": 128,
    "pattern": rf"^((\*|{_SEGMENT})\.)*(\*\*?|{_SEGMENT})$",
    "examples": ["orders.*"],
}

_ASKED = [
    last_event_id({"type": "string"}),
    {
        "name": "last_event_id",
        "in": "query",
        "description": SAYS["last_event_id"],
        "schema": {"type": "string"},
    },
    {
        "name": "until",
        "in": "query",
        "description": "Types of events: the stream ends after the first event of one of them.",
        "schema": {
            "type": "array",
            "maxItems": MAX_TYPES,
            "items": {
                "type": "string",
                "minLength": 1,
                "maxLength": MAX_TYPE,
                "pattern": r"^[^\r\n]*$",
                "not": {"enum": list(RESERVED)},
                "examples": ["done"],
            },
        },
    },
]
_OVER = answer("The client has received the event that `until` names; this stops an EventSource.")
_STREAM = answer(
    "The published events, without an end. First those after the cursor, if there is "
    "one, then new ones as they come.",
    event_stream("ChannelEvent"),
    header("Last-Event-ID", "Cache-Control"),
)
_SUBSCRIBE = ("400", "401", "403", "404", "503")

PATHS: dict[str, Any] = {
    "/channels/{name}": {
        "get": operation(
            "subscribe",
            "channels",
            "Subscribe to a channel, or to the channels of a pattern",
            {"200": _STREAM, "204": _OVER},
            _SUBSCRIBE,
            description="In a pattern `*` stands for one segment between dots, and `**`, at the "
            "end, for one or more. What `SSEFLASK_PUBLIC_CHANNELS` covers needs no token.",
            parameters=[
                {"name": "name", "in": "path", "required": True, "schema": _PATTERN},
                *_ASKED,
            ],
            security=MAYBE_TOKEN,
        ),
        "post": operation(
            "publish",
            "channels",
            "Publish one event, or several together",
            {
                "201": json_answer(
                    "Stored, and on its way.",
                    {"$ref": "#/components/schemas/Published"},
                    header("Location", "Idempotency-Replayed"),
                )
            },
            (*BODY, "401", "403", "404", "409", "429", "503"),
            description="A body that is not JSON, of any media type, is the data of one "
            "event, such as that of `curl -d hello`. `multipart/*` is refused.",
            parameters=[
                {"name": "name", "in": "path", "required": True, "schema": _NAME},
                IDEMPOTENCY_KEY,
            ],
            body={
                "application/json": {
                    "schema": {
                        "oneOf": [
                            {"$ref": "#/components/schemas/Publication"},
                            {"$ref": "#/components/schemas/Publications"},
                        ]
                    }
                },
                "text/plain": {"schema": {"type": "string", "minLength": 1}},
            },
            body_required=True,
            security=TOKEN,
        ),
    },
    "/channels": {
        "get": operation(
            "subscribeToSeveral",
            "channels",
            "Subscribe to several channels and patterns in one stream",
            {"200": _STREAM, "204": _OVER},
            _SUBSCRIBE,
            parameters=[
                {
                    "name": "c",
                    "in": "query",
                    "required": True,
                    "description": f"Names and patterns, {MAX_WILDCARDS} of them with wildcards.",
                    "schema": {
                        "type": "array",
                        "minItems": 1,
                        "maxItems": MAX_CHANNELS,
                        "items": _PATTERN,
                        "contains": {"type": "string", "pattern": "[*]"},
                        "minContains": 0,
                        "maxContains": MAX_WILDCARDS,
                    },
                },
                *_ASKED,
            ],
            security=MAYBE_TOKEN,
        )
    },
}
