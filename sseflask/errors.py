"""The exceptions of the library, with messages for their reader. No Flask, no I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping

__all__ = [
    "SHOULD_RETRY",
    "TEMPORARY",
    "ChannelError",
    "ConfigError",
    "EventError",
    "Failure",
    "invalid",
]

#: The header that OpenAI's clients obey before they look at the status.
SHOULD_RETRY = "X-Should-Retry"

#: Statuses below 500 after which OpenAI's clients repeat a request. They do so after 409 too, which
#: is final here.
TEMPORARY = (408, 425, 429)


class EventError(ValueError):
    """The event stream format can't represent an event."""


class ChannelError(ValueError):
    """A text is neither a channel's name nor a pattern; the message says what is allowed."""


class ConfigError(ValueError):
    """The value of a setting is not allowed; the message names the setting and what is allowed."""


class Failure(Exception):
    """An error of a request or a stream, as the client gets it.

    Raised in a view, or in a generator before its first event, it becomes a JSON error with
    ``status``; raised later it becomes the last event of the stream.

    Args:
        message: what was wrong and what to do, in words that may reach the client.
        status: the HTTP status, as long as no byte has been sent.
        type: the error's class, in OpenAI's vocabulary (``invalid_request_error``, ...).
        param: the request parameter at fault.
        code: a short name for programs.
        headers: further response headers (``Retry-After``), as long as no byte has been sent.
        transient: the same request may succeed after ``Retry-After``. Any status but 200 would
            close an EventSource for good: it gets a stream that makes it reconnect.

    Attributes:
        cursor: the id that this EventSource presents when it reconnects, or an empty text.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 500,
        type: str = "server_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        transient: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.type = type
        self.param = param
        self.code = code
        self.headers = dict(headers or {})
        self.transient = transient
        self.cursor = ""

    def body(self) -> dict[str, dict[str, str | None]]:
        """The error as every route reports it, in the shape of OpenAI's API."""
        names = ("message", "type", "param", "code")
        return {"error": {name: getattr(self, name) for name in names}}

    def json(self) -> str:
        """`body` as JSON on one line; lone surrogates are replaced, so that UTF-8 can carry it."""
        return json.dumps(self.body(), ensure_ascii=False).encode(errors="replace").decode()

    @property
    def may_repeat(self) -> bool:
        """Whether the same request may succeed later.

        The header ``X-Should-Retry`` decides, if an upstream has sent it. After an answer that was
        lost on its way the client may send the request again, though it pays twice.
        """
        for name, value in self.headers.items():
            if name.lower() == SHOULD_RETRY.lower() and value.lower() in ("true", "false"):
                return value.lower() == "true"
        return self.status in TEMPORARY or self.status >= 500


def invalid(
    message: str, *, param: str | None = None, code: str = "invalid_value", status: int = 400
) -> Failure:
    """The failure of a request that is at fault itself; ``param`` names the parameter."""
    return Failure(message, status=status, type="invalid_request_error", param=param, code=code)
