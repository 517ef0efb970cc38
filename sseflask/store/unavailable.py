"""The failure that clients get while a store can't do what they ask for."""

from __future__ import annotations

from sseflask.errors import Failure


def store_unavailable(name: str = "channel log") -> Failure:
    """The 503 for a request that a store can't serve now. The server's log says why.

    Args:
        name: of the store, as the message has it.
    """
    return Failure(
        f"The {name} is not available now: please try again.",
        status=503,
        code="log_unavailable",
        headers={"Retry-After": "5"},
        transient=True,
    )
