"""What can go wrong, in words for the person who meets it. No Flask, no I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping

__all__ = ["ChannelError", "ConfigError", "EventError", "Failure"]


class EventError(ValueError):
    """The event stream format can't represent what was asked for."""


class ChannelError(ValueError):
    """This is no channel's name, or no pattern of names; the message says what is allowed."""


class ConfigError(ValueError):
    """A setting has a value that is not allowed; the message names it and what is."""


class Failure(Exception):
    """What a client is told when a request or a stream can't go on.

    Raised in a view, or in a generator before its first event, it becomes a JSON error with
    ``status``; raised later it becomes the last event of the stream.

    Args:
        message: what was wrong and what to do, in words that may reach the client.
        status: the HTTP status, as long as no byte has been sent.
        type: the error's class, in OpenAI's vocabulary (``invalid_request_error``, ...).
        param: the request parameter at fault.
        code: a short name for programs.
        headers: further response headers (``Retry-After``), as long as no byte has been sent.
        transient: the same request may succeed after ``Retry-After``. An EventSource, which any
            status but 200 closes for good, is then told to come back instead.

    Attributes:
        cursor: the id that such an EventSource is to present when it comes back, or nothing.
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
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
            }
        }

    def json(self) -> str:
        """`body` as JSON text without line breaks, always fit for UTF-8: it must get through."""
        return json.dumps(self.body(), ensure_ascii=False).encode(errors="replace").decode()
