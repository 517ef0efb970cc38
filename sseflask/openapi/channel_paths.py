"""The routes of channels."""

from __future__ import annotations

from functools import partial
from typing import Any

from sseflask.channels.event_frames import RESERVED
from sseflask.openapi.fields import SAYS
from sseflask.openapi.operation import (
    BODY,
    IDEMPOTENCY_KEY,
    MAYBE_TOKEN,
    TOKEN,
    answer,
    json_of,
    last_event_id,
    operation,
    parameter,
)
from sseflask.openapi.schemas import TEXT, event_stream, ref
from sseflask.routes.channels import MAX_CHANNELS, MAX_TYPE, MAX_TYPES, MAX_WILDCARDS

_SEGMENT = "[A-Za-z0-9_:-]*"
_NAME = {**TEXT, "pattern": r"^[A-Za-z0-9_.:-]{1,128}$", "examples": ["orders.eu"]}
_PATTERN = {
    **TEXT,
    "minLength": 1,
    "maxLength": 128,
    "pattern": rf"^((\*|{_SEGMENT})\.)*(\*\*?|{_SEGMENT})$",
    "examples": ["orders.*"],
}
_TYPE = {
    **TEXT,
    "minLength": 1,
    "maxLength": MAX_TYPE,
    "pattern": r"^[^\r\n]*$",
    "not": {"enum": list(RESERVED)},
    "examples": ["done"],
}
_OF_SUBSCRIPTIONS = [
    last_event_id(TEXT),
    parameter("query", "last_event_id", TEXT, SAYS["last_event_id"]),
    parameter(
        "query",
        "until",
        {"type": "array", "maxItems": MAX_TYPES, "items": _TYPE},
        "Types of events: the stream ends after the first event of one of them.",
    ),
]
_SEVERAL = parameter(
    "query",
    "c",
    {
        "type": "array",
        "minItems": 1,
        "maxItems": MAX_CHANNELS,
        "items": _PATTERN,
        "contains": {**TEXT, "pattern": "[*]"},
        "minContains": 0,
        "maxContains": MAX_WILDCARDS,
    },
    f"Names and patterns, {MAX_WILDCARDS} of them with wildcards.",
    required=True,
)
_subscription = partial(
    operation,
    "channels",
    answers={
        "200": answer(
            "The published events, without an end. First those after the cursor, if there is "
            "one, then new ones as they come.",
            event_stream("ChannelEvent"),
            "Last-Event-ID",
            "Cache-Control",
        ),
        "204": answer(
            "The client has received the event that `until` names; this stops an EventSource."
        ),
    },
    refused=("400", "401", "403", "404", "503"),
    security=MAYBE_TOKEN,
)

PATHS: dict[str, Any] = {
    "/channels/{name}": {
        "get": _subscription(
            "subscribe",
            "Subscribe to a channel, or to the channels of a pattern",
            description="In a pattern `*` stands for one segment between dots, and `**`, at the "
            "end, for one or more. What `SSEFLASK_PUBLIC_CHANNELS` covers needs no token.",
            parameters=[parameter("path", "name", _PATTERN), *_OF_SUBSCRIPTIONS],
        ),
        "post": operation(
            "channels",
            "publish",
            "Publish one event, or several together",
            {
                "201": answer(
                    "Stored, and on its way.",
                    json_of(ref("Published")),
                    "Location",
                    "Idempotency-Replayed",
                )
            },
            (*BODY, "401", "403", "404", "409", "429", "503"),
            description="A body that is not JSON, of any media type, is the data of one "
            "event, such as that of `curl -d hello`. `multipart/*` is refused.",
            parameters=[parameter("path", "name", _NAME), IDEMPOTENCY_KEY],
            body={
                **json_of({"oneOf": [ref("Publication"), ref("Publications")]}),
                "text/plain": {"schema": {**TEXT, "minLength": 1}},
            },
            body_required=True,
            security=TOKEN,
        ),
    },
    "/channels": {
        "get": _subscription(
            "subscribeToSeveral",
            "Subscribe to several channels and patterns in one stream",
            parameters=[_SEVERAL, *_OF_SUBSCRIPTIONS],
        )
    },
}
