"""Moves the history of channels and the ended runs from one backend to another.

Ids of events, runs and frames mean the same afterwards, keys are known, and ages count on. What is
moved is read only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from sseflask.store.api import EventLimits, StoreError
from sseflask.store.redis import is_redis
from sseflask.store.run_api import RunLimits
from sseflask.store.sqlite.transfer import SqliteTransfer
from sseflask.store.transfer import Counts, Transfer


class Addresses(NamedTuple):
    """Where the events and the runs of a service are: two paths, or twice the same URL."""

    events: str
    runs: str


def open_transfer(
    addresses: Addresses, event_limits: EventLimits, run_limits: RunLimits
) -> Transfer:
    """What moves to a place, or from it. Raises `StoreError`; nothing happens before it is used."""
    if not is_redis(addresses.events):
        return SqliteTransfer(*addresses, event_limits, run_limits)
    try:
        # Not before it is needed: without it the package redis need not be installed.
        from sseflask.store.redis.transfer import RedisTransfer

        return RedisTransfer(addresses.events, event_limits, run_limits)
    except ImportError:
        raise StoreError(
            'a store on Redis needs the package redis: pip install "sseflask[redis]"'
        ) from None
    except ValueError as error:
        raise StoreError(str(error)) from None


def count(source: Transfer, target: Transfer) -> tuple[Counts, str]:
    """How much would be moved, and why it can't be, or nothing. Changes nothing."""
    try:
        source.open(alone=False)
        counts = source.counts()
        return counts, target.why_not(counts)
    finally:
        target.close()
        source.close()


def move(
    source: Transfer, target: Transfer, progress: Callable[[Counts, Counts], object]
) -> Counts:
    """Move everything into an empty place. Returns how much was moved.

    If it fails, or is interrupted, the place is empty again. If this process dies it stays marked,
    and no service uses it before the next call has deleted what is there, and has moved all.

    Args:
        source: where it is; it is not changed.
        target: where it is to be.
        progress: called again and again, with what was moved so far and all that is to be.

    Raises:
        StoreError: why not, and what to do.
    """
    moved = Counts()
    try:
        source.open()
        wanted = source.counts()
        if reason := target.why_not(wanted):
            raise StoreError(reason)
        target.begin()
        try:
            for part in source.parts():
                target.take(part)
                moved.add(part)
                progress(moved, wanted)
            source.check_unchanged()
            target.finish(source.head())
        except BaseException:
            target.abandon()
            raise
    finally:
        target.close()
        source.close()
    moved.running = wanted.running
    return moved
