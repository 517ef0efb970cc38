"""What a client gets when the upstream fails: in OpenAI's shape, without our key."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import Any

import httpx2

from sseflask.completions.chunked import BrokenChunks
from sseflask.errors import Failure
from sseflask.logs.masking import mask
from sseflask.runs.outcome import ReportedFailure

log = logging.getLogger(__name__)

_DEPTH = 20


class UpstreamFailure(ReportedFailure):
    """An upstream's own error, passed on with all the fields it gave."""


def unreachable(error: Exception) -> Failure:
    """The failure of a request that got no response."""
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
    log.warning("the upstream's connection failed: %s: %r", type(error).__name__, str(error)[:200])
    if isinstance(error, (httpx2.DecodingError, BrokenChunks)):
        what = "decompressed" if isinstance(error, httpx2.DecodingError) else "read"
        return Failure(
            f"The upstream's answer can't be {what}: {str(error)[:200]}.",
            status=502,
            code="upstream_invalid",
        )
    return broken_off()


def broken_off() -> Failure:
    """The failure of a stream that ended without saying that the answer is complete."""
    return Failure(
        "The upstream ended its stream before the answer was complete.",
        status=502,
        code="upstream_truncated",
    )


def timeout() -> Failure:
    """The failure of an upstream that was silent beyond the limit."""
    log.warning("the upstream was silent for too long")
    return Failure(
        "The upstream was silent for too long; please try again later.",
        status=504,
        code="upstream_timeout",
    )


def masked(value: Any, secrets: Iterable[str]) -> Any:
    """A value of JSON without secrets in its texts, and without NaN and infinities.

    Args:
        value: the value; what is nested more than 20 deep is left out.
        secrets: values to mask, besides everything that looks like a key or a token.
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
