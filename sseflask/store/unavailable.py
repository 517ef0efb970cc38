"""The failures that clients get when a store can't do, or refuses, what they ask for."""

from __future__ import annotations

from sseflask.errors import Failure


def store_unavailable(name: str = "channel log") -> Failure:
    """The 503 for a request that a store can't serve now. The server's log says why."""
    return Failure(
        f"The {name} is not available now: please try again.",
        status=503,
        code="log_unavailable",
        headers={"Retry-After": "5"},
        transient=True,
    )


def key_reused(what: str) -> Failure:
    """The 409 for a key that was used for other content; each of ``what`` needs a new one."""
    header = "Idempotency-Key"
    return Failure(
        f"This {header} was used for other content: use a new key for every {what}, and the same "
        "one only to repeat it.",
        status=409,
        type="invalid_request_error",
        param=header,
        code="idempotency_key_reused",
    )
