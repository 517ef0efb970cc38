"""What is told to a client when the upstream fails: in OpenAI's shape, without our key."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import Any

import httpx2
import openai

from sseflask.errors import Failure
from sseflask.masking import mask

__all__ = [
    "UpstreamFailure",
    "broken_off",
    "cancelled",
    "error_frame",
    "from_sdk",
    "interrupted",
    "masked",
    "not_a_stream",
    "stopped",
    "timeout",
    "while_reading",
]

log = logging.getLogger(__name__)

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_DEPTH = 20


class UpstreamFailure(Failure):
    """An upstream's own error, told with all the fields it gave.

    Args:
        status: the HTTP status, as long as no byte has been sent.
        error: the error object, with ``message``, ``type``, ``param`` and ``code`` at least.
        headers: further response headers.
    """

    def __init__(
        self, status: int, error: dict[str, Any], headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(
            error["message"],
            status=status,
            type=error["type"],
            param=error["param"],
            code=error["code"],
            headers=headers,
        )
        self.error = error

    def body(self) -> dict[str, dict[str, Any]]:
        """The upstream's error object, completed to OpenAI's shape."""
        return {"error": self.error}


def from_sdk(error: openai.APIError, secrets: Iterable[str]) -> Failure:
    """The failure of a request that got no stream.

    Args:
        error: what the SDK raised.
        secrets: values to mask in whatever the upstream says.
    """
    if isinstance(error, openai.APIStatusError):
        status = error.status_code if 400 <= error.status_code < 600 else 502
        log.warning("the upstream answered %d", error.status_code)
        headers = {}
        retry_after = error.response.headers.get("Retry-After")
        if retry_after is not None and retry_after.isascii() and retry_after.isprintable():
            headers["Retry-After"] = retry_after
        return UpstreamFailure(status, _shaped(_json(error.response), status, secrets), headers)
    if isinstance(error, openai.APITimeoutError):
        return timeout()
    cause = error.__cause__ or error
    log.warning("the upstream can't be reached: %s: %r", type(cause).__name__, str(cause))
    return Failure(
        "The upstream can't be reached; please try again later.",
        status=502,
        code="upstream_unreachable",
    )


def while_reading(error: httpx2.HTTPError) -> Failure:
    """The failure of a stream whose connection failed."""
    if isinstance(error, httpx2.TimeoutException):
        return timeout()
    log.warning("the upstream's connection failed: %s", type(error).__name__)
    return broken_off()


def broken_off() -> Failure:
    """The failure of a stream that ended without saying that the answer is complete."""
    return Failure(
        "The upstream ended its stream before the answer was complete.",
        status=502,
        code="upstream_truncated",
    )


def not_a_stream(reason: str) -> Failure:
    """The failure of an upstream that sends something that can't be relayed."""
    log.warning("the upstream's answer can't be relayed: %s", reason)
    return Failure(
        f"The upstream's answer can't be relayed: {reason}.",
        status=502,
        code="upstream_invalid",
    )


def interrupted() -> Failure:
    """The failure of a completion whose worker died, or was shut down, before its end."""
    return Failure(
        "The server that ran this completion stopped before it was complete; please ask again.",
        status=503,
        code="interrupted",
        headers={"Retry-After": "5"},
    )


def stopped() -> Failure:
    """How the end of a completion that somebody stopped is told where only errors can be told."""
    return Failure(
        "The completion was stopped before it was complete.",
        status=409,
        type="run_stopped",
        code="stopped",
    )


def cancelled() -> Failure:
    """The same of a completion whose last viewer had left."""
    return Failure(
        "The completion was cancelled before it was complete: nobody was there to read it.",
        status=409,
        type="run_cancelled",
        code="cancelled",
    )


def error_frame(error: Any, secrets: Iterable[str]) -> UpstreamFailure:
    """The failure that an upstream reported inside its stream.

    Args:
        error: the value of ``error``, or of the whole frame where it has none.
        secrets: values to mask.
    """
    log.warning("the upstream reported an error inside its stream")
    return UpstreamFailure(502, _shaped(error, 502, secrets))


def _json(response: httpx2.Response) -> Any:
    # Not the SDK's error.body: it does not tell an error that is text from a page of HTML.
    try:
        return response.json()
    except (ValueError, RecursionError):
        return None


def timeout() -> Failure:
    """The failure of an upstream that was silent beyond the limit."""
    log.warning("the upstream was silent for too long")
    return Failure(
        "The upstream was silent for too long; please try again later.",
        status=504,
        code="upstream_timeout",
    )


def _shaped(body: Any, status: int, secrets: Iterable[str]) -> dict[str, Any]:
    """An error object with OpenAI's four fields, made from whatever the upstream sent."""
    given = masked(body, secrets) if isinstance(body, dict) else {}
    if isinstance(given.get("error"), dict):
        given = given["error"]
    said = next(
        (
            text
            for text in (given.get("message"), given.get("detail"), given.get("error"))
            if isinstance(text, str) and text
        ),
        f"The upstream failed with status {status}.",
    )
    kind = given.get("type")
    if not isinstance(kind, str) or not kind:
        kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    # A body of another shape is wrapped; one of OpenAI's keeps what else it says.
    further = given if isinstance(given.get("message"), str) else {}
    return {
        **further,
        "message": said,
        "type": kind,
        "param": given.get("param"),
        "code": given.get("code"),
    }


def masked(value: Any, secrets: Iterable[str]) -> Any:
    """A value of JSON without secrets in its texts, and without numbers beyond JSON's.

    Args:
        value: anything that JSON can spell; what is nested more than 20 deep is left out.
        secrets: values to mask, besides all that looks like a key or a token.
    """
    return _masked(value, tuple(secrets), _DEPTH)


def _masked(value: Any, secrets: tuple[str, ...], depth: int) -> Any:
    if isinstance(value, str):
        return mask(value, secrets)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if depth == 0:
        return None if isinstance(value, (dict, list)) else value
    if isinstance(value, dict):
        return {
            mask(str(name), secrets): _masked(inner, secrets, depth - 1)
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [_masked(inner, secrets, depth - 1) for inner in value]
    return value
