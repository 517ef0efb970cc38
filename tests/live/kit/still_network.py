"""Turns between tests that change this machine's addresses and those with a browser.

Chromium gives up all that it loads when an address comes or goes (``ERR_NETWORK_CHANGED``). Tests
run in several processes, so the turns are locks of files.
"""

from __future__ import annotations

import contextlib
import fcntl
import tempfile
from collections.abc import Iterator
from pathlib import Path

_PLACE = Path(tempfile.gettempdir())


@contextlib.contextmanager
def _locked(name: str, how: int) -> Iterator[None]:
    with (_PLACE / f"sseflask-tests-{name}.lock").open("w") as file:
        fcntl.flock(file, how)
        yield


@contextlib.contextmanager
def addresses_stay() -> Iterator[None]:
    """While a browser loads something; many may at a time."""
    with _locked("door", fcntl.LOCK_EX):  # which is closed if somebody waits to change them
        shared = contextlib.ExitStack()
        shared.enter_context(_locked("addresses", fcntl.LOCK_SH))
    with shared:
        yield


@contextlib.contextmanager
def addresses_change() -> Iterator[None]:
    """While addresses come or go."""
    with _locked("door", fcntl.LOCK_EX), _locked("addresses", fcntl.LOCK_EX):
        yield
