"""Which failures are final, and which a client may meet with the same request once more."""

from __future__ import annotations

from sseflask.errors import Failure

__all__ = ["PASSING", "SHOULD_RETRY", "may_repeat"]

#: What OpenAI's clients obey before they look at the status.
SHOULD_RETRY = "X-Should-Retry"

#: Statuses below 500 that OpenAI's clients take for passing, but for 409: here that is final.
PASSING = (408, 425, 429)


def may_repeat(failure: Failure) -> bool:
    """Whether the same request may succeed later.

    What an upstream has said about that counts first. An answer that was lost on its way may be
    asked for again, though it has been paid for: there is no other way to it.
    """
    told = {name.lower(): value for name, value in failure.headers.items()}
    said = told.get(SHOULD_RETRY.lower(), "").lower()
    if said in ("true", "false"):
        return said == "true"
    return failure.status in PASSING or failure.status >= 500
