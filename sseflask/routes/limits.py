"""How often something may be asked for: per subject, in each worker's memory."""

from __future__ import annotations

import math
import time
from typing import Literal

from flask import Flask, current_app, request
from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

from sseflask.addresses import client_network
from sseflask.errors import Failure

__all__ = ["Limits", "account_of", "count_publication", "count_request"]

_EXTENSION = "sseflask.limits"

_Kind = Literal["completions", "publications"]


class Limits:
    """The limits of one app. Thread-safe.

    Args:
        completions: how many a time, such as ``600/minute``; ``off`` for no limit.
        publications: the same for requests that publish.
    """

    def __init__(self, completions: str, publications: str) -> None:
        rates: dict[_Kind, str] = {"completions": completions, "publications": publications}
        self._items: dict[str, RateLimitItem] = {
            kind: parse(rate) for kind, rate in rates.items() if rate != "off"
        }
        self._limiter = FixedWindowRateLimiter(MemoryStorage())

    def init_app(self, app: Flask) -> None:
        """Make `count_request` and its like work in the app's views."""
        app.extensions[_EXTENSION] = self

    def count(self, kind: _Kind, account: str) -> None:
        """Count a request. Never blocks.

        Args:
            kind: what it asks for.
            account: whose requests are counted together.

        Raises:
            Failure: 429, there have been too many.
        """
        item = self._items.get(kind)
        if item is None or self._limiter.hit(item, kind, account):
            return
        resets = self._limiter.get_window_stats(item, kind, account).reset_time
        seconds = max(1, math.ceil(resets - time.time()))
        raise Failure(
            f"Too many {kind} were asked for: {item} are allowed. Wait {seconds} s.",
            status=429,
            type="rate_limit_error",
            code="rate_limited",
            headers={"Retry-After": str(seconds)},
            transient=True,
        )


def account_of(subject: str) -> str:
    """Whose requests and runs are counted together: a subject's, else those of an address."""
    return f"subject {subject}" if subject else f"address {client_network(request.remote_addr)}"


def count_request(account: str) -> None:
    """`Limits.count` a completion, in the current app."""
    _limits().count("completions", account)


def count_publication(account: str) -> None:
    """`Limits.count` a request to publish, in the current app."""
    _limits().count("publications", account)


def _limits() -> Limits:
    limits: Limits = current_app.extensions[_EXTENSION]
    return limits
