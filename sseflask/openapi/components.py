"""What several routes share: schemas, headers, refusals, and the ways to send a token."""

from __future__ import annotations

from typing import Any

from sseflask.auth.cookie import NAME
from sseflask.channels.event_frames import EARLIEST, RESERVED
from sseflask.counters.counts import GAPS
from sseflask.event import MOST_RETRY
from sseflask.openapi.streams import EVENTS
from sseflask.routes.publication import MAX_EVENTS

Schema = dict[str, Any]

_TEXT_OR_NULL: Schema = {"type": ["string", "null"]}

SCHEMAS: dict[str, Schema] = {
    "Error": {
        "type": "object",
        "description": "Every error, in the shape of OpenAI's API. One that an upstream has given "
        "keeps its further fields.",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type", "param", "code"],
                "properties": {
                    "message": {
                        "type": "string",
                        "description": "What was wrong, and what to do.",
                    },
                    "type": {**_TEXT_OR_NULL, "description": "The kind of error."},
                    "param": {**_TEXT_OR_NULL, "description": "The parameter at fault."},
                    "code": {
                        "type": ["string", "integer", "null"],
                        "description": "A short name, for programs.",
                    },
                },
            }
        },
        "examples": [
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
    },
    "Gap": {
        "type": "object",
        "required": ["reason", "channel", "last_event_id", "oldest", "newest"],
        "properties": {
            "reason": {"enum": list(GAPS)},
            "channel": {"type": "string", "description": "The name or pattern that it concerns."},
            "last_event_id": {"type": "string", "description": "What the client presented."},
            "oldest": {**_TEXT_OR_NULL, "description": "The id of the oldest stored event."},
            "newest": {**_TEXT_OR_NULL, "description": "The id of the newest one."},
        },
    },
    "Publication": {
        "type": "object",
        "description": "One event. Its id is given by the server.",
        "required": ["data"],
        "additionalProperties": False,
        "properties": {
            "data": {"description": "Text is sent as it is, anything else as JSON."},
            "event": {
                "type": ["string", "null"],
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
        "examples": [{"data": {"order": 7}, "event": "new"}],
    },
    "Publications": {
        "type": "array",
        "description": "Stored together, or not at all.",
        "minItems": 1,
        "maxItems": MAX_EVENTS,
        "items": {"$ref": "#/components/schemas/Publication"},
    },
    "Published": {
        "type": "object",
        "description": "`id` for one event, `ids` for an array.",
        "properties": {
            "id": {"type": "string", "examples": ["k3v9m2xa-1"]},
            "ids": {"type": "array", "minItems": 1, "items": {"type": "string"}},
        },
        "oneOf": [{"required": ["id"]}, {"required": ["ids"]}],
        "additionalProperties": False,
    },
    "Message": {
        "type": "object",
        "required": ["role"],
        "properties": {
            "role": {"type": "string", "examples": ["user"]},
            "content": {"description": "Text, or a list of parts.", "examples": ["Hello"]},
        },
    },
    "StoppedRun": {
        "type": "object",
        "required": ["id", "status"],
        "properties": {
            "id": {"type": "string"},
            "status": {"enum": ["stopped", "finished", "failed", "cancelled"]},
        },
    },
    "Ready": {
        "type": "object",
        "required": ["status"],
        "properties": {
            "status": {"enum": ["ready", "draining"]},
            "channels": {
                "type": "object",
                "properties": {
                    "log": {"type": "string"},
                    "history": {"enum": ["memory", "ephemeral", "disk"]},
                    "meaning": {"type": "string"},
                },
            },
            "completions": {"type": "object", "properties": {"log": {"type": "string"}}},
        },
    },
    "UpstreamObject": {
        "type": "object",
        "description": "The upstream's response, unchanged.",
    },
    **EVENTS,
}


def _header(says: str, **schema: Any) -> Schema:
    return {"description": says, "schema": {"type": "string", **schema}}


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


def header(*names: str) -> dict[str, Schema]:
    """These of `HEADERS`, for a response; each has the request's id too."""
    return {name: {"$ref": f"#/components/headers/{name}"} for name in ("X-Request-Id", *names)}


def _refusal(says: str, *headers: str) -> Schema:
    return {
        "description": says,
        "headers": header(*headers),
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }


_REFUSALS: dict[str, Schema] = {
    "400": _refusal("The request does not fit; `param` names what is wrong.", "X-Should-Retry"),
    "401": _refusal("There is no token, or it is not valid or has expired.", "WWW-Authenticate"),
    "403": _refusal("The token lacks a right, or a page of another site has sent the request."),
    "404": _refusal("It does not exist, or it belongs to another subject."),
    "408": _refusal("The request's body did not come in time."),
    "409": _refusal("The `Idempotency-Key` was used for other content.", "X-Should-Retry"),
    "413": _refusal("The body or the prompt is too long, or holds too many values."),
    "414": {
        "description": "The address is too long: a line of 8 KiB at most. By gunicorn, in HTML.",
        "headers": header(),
        "content": {"text/html": {"schema": {"type": "string"}}},
    },
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

#: The refusals, by the names that `refusals` refers to.
RESPONSES = {f"Refused{status}": response for status, response in _REFUSALS.items()}


def refusals(*statuses: str) -> dict[str, Schema]:
    """The refusals with these statuses that a route may send, and 500, which each may."""
    known = sorted({*statuses, "500"})
    return {status: {"$ref": f"#/components/responses/Refused{status}"} for status in known}


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

#: The header of a client that comes back.
CURSOR_SAYS = f"The id of the last event that the client has got, or `{EARLIEST}`."
