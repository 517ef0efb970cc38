"""How often a subject may send a request: counted by each worker, or by Redis for all."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any, Literal, Protocol

from flask import Flask, current_app, request

from sseflask.errors import Failure

_EXTENSION = "sseflask.limits"

_Kind = Literal["completions", "publications"]

_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}

#: The demo model's completions, of all addresses together: they take a third of a core.
_OF_DEMO = "30/second"

#: IPv6 addresses that translators make from IPv4's (RFC 6052).
_TRANSLATED = IPv6Network("64:ff9b::/96")
#: The length of the shortest prefix that a provider gives to one customer (RFC 6177).
_PREFIX = 64


class RateCounter(Protocol):
    """Counts requests for several workers or machines together."""

    def count(self, name: str, amount: int, seconds: int) -> float | None:
        """Count a request of a name, in a window of some seconds that begins with the first.

        Returns 0.0 if the window allows it, else the seconds until it is over; ``None`` if that
        can't be said now.
        """


class Limits:
    """The limits of one app, such as ``600/minute``, or ``off``. Thread-safe.

    Args:
        completions: how many completions of an account are begun.
        publications: how many times an account publishes.
        shared: gives this process's counter for all workers; without one each counts for itself,
            as it does while that counter can't. Nothing else blocks.
    """

    def __init__(
        self,
        completions: str,
        publications: str,
        shared: Callable[[], RateCounter] | None = None,
    ) -> None:
        rates: dict[_Kind, str] = {"completions": completions, "publications": publications}
        self._windows = {
            kind: _Windows(kind, rate, shared) for kind, rate in rates.items() if rate != "off"
        }
        self._demo = _Windows("demo", _OF_DEMO, shared) if completions != "off" else None

    def init_app(self, app: Flask) -> None:
        """Make these the `current_limits` of the app's views."""
        app.extensions[_EXTENSION] = self

    def count(self, kind: _Kind, account: str) -> None:
        """Count a request of an account (see `account_of`); 429 if there have been too many."""
        windows = self._windows.get(kind)
        if windows is not None and (seconds := windows.count(account)):
            raise _too_many(
                f"Too many {kind} were requested: {windows} are allowed. Wait {seconds} s.",
                seconds,
                status=429,
                type="rate_limit_error",
                code="rate_limited",
            )

    def count_demo(self) -> None:
        """Count a completion of the demo model; 503 if all clients together have begun too many."""
        windows = self._demo
        if windows is not None and (seconds := windows.count("")):
            raise _too_many(
                f"Too many are using the demo model: it begins {windows} completions for all of "
                "them together. Please try again in a moment.",
                seconds,
                status=503,
                code="demo_busy",
            )


def _too_many(message: str, seconds: int, **fields: Any) -> Failure:
    headers = {"Retry-After": str(seconds)}
    return Failure(message, headers=headers, transient=True, **fields)


class _Windows:
    """Counts the requests of each account in a fixed window that begins with its first one."""

    def __init__(self, kind: str, rate: str, shared: Callable[[], RateCounter] | None) -> None:
        self._kind, self._shared = kind, shared
        amount, _, self._unit = rate.partition("/")
        self._amount, self._seconds = int(amount), _SECONDS[self._unit]
        self._lock = threading.Lock()
        # All windows are equally long, so the expired ones are first.
        self._counts: dict[str, tuple[float, int]] = {}

    def __str__(self) -> str:
        return f"{self._amount} per {self._unit}"

    def count(self, account: str) -> int:
        """Count a request. Returns 0, or in how many seconds the next is allowed."""
        if self._shared is not None:
            wait = self._shared().count(f"{self._kind}:{account}", self._amount, self._seconds)
            if wait is not None:
                return math.ceil(wait)
        return self._count_here(account)

    def _count_here(self, account: str) -> int:
        now = time.monotonic()
        with self._lock:
            while self._counts:
                first = next(iter(self._counts))
                if self._counts[first][0] > now:
                    break
                del self._counts[first]
            end, count = self._counts.get(account, (now + self._seconds, 0))
            if count >= self._amount:
                return math.ceil(end - now)
            self._counts[account] = end, count + 1
            return 0


def account_of(subject: str) -> str:
    """The key under which a subject's requests are counted, or else the client's address."""
    return f"subject {subject}" if subject else f"address {client_network(request.remote_addr)}"


def current_limits() -> Limits:
    limits: Limits = current_app.extensions[_EXTENSION]
    return limits


def client_network(address: str | None) -> str:
    """The network that counts as one client.

    Proxies write an address with a port, in brackets, with a zone. Of an IPv6 address it is the /64
    network, as a client has all of it, unless an IPv4 address is embedded in it. All malformed
    addresses together are one client, ``"unknown"``.
    """
    found = _parsed((address or "").strip().strip('"'))
    if isinstance(found, IPv6Address):
        found = _embedded(found) or found
    if found is None or isinstance(found, IPv4Address):
        return str(found or "unknown")
    return str(IPv6Network((int(found) >> _PREFIX << _PREFIX, _PREFIX)))


def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return ip_address(text.partition("%")[0])
    except ValueError:
        return None


def _embedded(address: IPv6Address) -> IPv4Address | None:
    if address in _TRANSLATED:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    # A network of 6to4 or Teredo belongs to one IPv4 client, and has more than one /64.
    return address.ipv4_mapped or address.sixtofour or (address.teredo and address.teredo[1])
