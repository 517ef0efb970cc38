"""How often something may be asked for: per subject, in each worker's memory."""

from __future__ import annotations

import math
import threading
import time
from typing import Literal

from flask import Flask, current_app, request

from sseflask.errors import Failure
from sseflask.web.addresses import client_network

__all__ = ["Limits", "account_of", "count_publication", "count_request"]

_EXTENSION = "sseflask.limits"

_Kind = Literal["completions", "publications"]

_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}

#: Of all that ask the demo model together, whatever their addresses: a third of a core.
_OF_DEMO = "30/second"


class Limits:
    """The limits of one app. Thread-safe.

    Args:
        completions: how many a time, such as ``600/minute``; ``off`` for no limit.
        publications: the same for requests that publish.
    """

    def __init__(self, completions: str, publications: str) -> None:
        rates: dict[_Kind, str] = {"completions": completions, "publications": publications}
        self._windows = {kind: _Windows(rate) for kind, rate in rates.items() if rate != "off"}
        self._demo = _Windows(_OF_DEMO) if completions != "off" else None

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
        windows = self._windows.get(kind)
        seconds = 0 if windows is None else math.ceil(windows.hit(account, time.monotonic()))
        if not seconds:
            return
        raise Failure(
            f"Too many {kind} were asked for: {windows} are allowed. Wait {seconds} s.",
            status=429,
            type="rate_limit_error",
            code="rate_limited",
            headers={"Retry-After": str(seconds)},
            transient=True,
        )

    def count_demo(self) -> None:
        """Count a completion of the demo model. Never blocks.

        Raises:
            Failure: 503, everybody together has begun too many.
        """
        if self._demo is None:
            return
        seconds = math.ceil(self._demo.hit("", time.monotonic()))
        if not seconds:
            return
        raise Failure(
            f"Too many are asking the demo model: it begins {self._demo} completions for all of "
            "them together. Please try again in a moment.",
            status=503,
            code="demo_busy",
            headers={"Retry-After": str(seconds)},
            transient=True,
        )


class _Windows:
    """Counts what each account asks for; its time begins with its first request.

    Args:
        rate: how many a second, minute, hour or day, such as ``10/minute``.
    """

    def __init__(self, rate: str) -> None:
        amount, _, self._unit = rate.partition("/")
        self._amount, self._seconds = int(amount), _SECONDS[self._unit]
        self._lock = threading.Lock()
        # All last equally long, so those that are over stand in front.
        self._counts: dict[str, tuple[float, int]] = {}

    def __str__(self) -> str:
        return f"{self._amount} per {self._unit}"

    def hit(self, account: str, now: float) -> float:
        """Count a request; in how many seconds the next may come, 0 where this one may."""
        with self._lock:
            while self._counts:
                first = next(iter(self._counts))
                if self._counts[first][0] > now:
                    break
                del self._counts[first]
            over, count = self._counts.get(account, (now + self._seconds, 0))
            if count >= self._amount:
                return over - now
            self._counts[account] = over, count + 1
            return 0.0


def account_of(subject: str) -> str:
    """Whose requests and runs are counted together: a subject's, else those of an address."""
    return f"subject {subject}" if subject else f"address {client_network(request.remote_addr)}"


def count_request(account: str, *, demo: bool = False) -> None:
    """`Limits.count` a completion, in the current app; with the demo model also `count_demo`."""
    limits = _limits()
    limits.count("completions", account)
    if demo:
        limits.count_demo()


def count_publication(account: str) -> None:
    """`Limits.count` a request to publish, in the current app."""
    _limits().count("publications", account)


def _limits() -> Limits:
    limits: Limits = current_app.extensions[_EXTENSION]
    return limits
