"""How often completions may be begun: Flask-Limiter, per subject, in each worker's memory."""

from __future__ import annotations

import math
import time

from flask import Flask, current_app, g, request
from flask_limiter import Limiter, RateLimitExceeded

from sseflask.errors import Failure

__all__ = ["Limits", "account_of", "count_request"]

_EXTENSION = "sseflask.limits"


class Limits:
    """The limit of one app. Thread-safe.

    Args:
        rate: such as ``600/minute``; ``None`` for no limit.
    """

    def __init__(self, rate: str | None) -> None:
        self._rate = rate
        self._limiter = Limiter(lambda: str(g.account), storage_uri="memory://")

    def init_app(self, app: Flask) -> None:
        """Make `count_request` work in the app's views."""
        app.extensions[_EXTENSION] = self
        if self._rate is not None:  # it looks at every request
            self._limiter.init_app(app)

    def count(self, account: str) -> None:
        """Count the current request. Never blocks.

        Args:
            account: whose requests are counted together.

        Raises:
            Failure: 429, there have been too many.
        """
        if self._rate is None:
            return
        g.account = account
        try:
            with self._limiter.limit(self._rate, scope="completions"):
                pass
        except RateLimitExceeded as exceeded:
            limit = self._limiter.current_limit
            seconds = 1 if limit is None else max(1, math.ceil(limit.reset_at - time.time()))
            raise Failure(
                f"Too many completions were asked for: {exceeded.limit.limit} are allowed. Wait "
                f"{seconds} s.",
                status=429,
                type="rate_limit_error",
                code="rate_limited",
                headers={"Retry-After": str(seconds)},
            ) from None


def account_of(subject: str) -> str:
    """Whose requests and runs are counted together: a subject's, else an address's."""
    return f"subject {subject}" if subject else f"address {request.remote_addr}"


def count_request(account: str) -> None:
    """`Limits.count` of the current app."""
    limits: Limits = current_app.extensions[_EXTENSION]
    limits.count(account)
