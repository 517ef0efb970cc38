"""Chooses the backend of a store by its address."""

from __future__ import annotations

from sseflask.defaults import MEMORY
from sseflask.store.api import EventLimits, EventStore
from sseflask.store.run_api import Endings, RunLimits, RunStore
from sseflask.store.sqlite import event_tables, run_tables
from sseflask.store.sqlite.event_store import SqliteEventStore
from sseflask.store.sqlite.file import FileFormat, other_format
from sseflask.store.sqlite.private_files import why_unusable
from sseflask.store.sqlite.run_store import SqliteRunStore


def open_event_store(address: str, limits: EventLimits) -> EventStore:
    """Make the store of a path or ``":memory:"``. Nothing happens before it is followed."""
    return SqliteEventStore(address, limits)


def open_run_store(address: str, limits: RunLimits, endings: Endings) -> RunStore:
    """The same for a store of runs."""
    return SqliteRunStore(address, limits, endings)


def event_store_problem(address: str) -> str:
    """Why the store can't be used, as far as a look at it tells, and what to do; or empty."""
    return _problem(address, event_tables.FORMAT)


def run_store_problem(address: str) -> str:
    """The same of a store of runs."""
    return _problem(address, run_tables.FORMAT)


def _problem(path: str, format: FileFormat) -> str:
    return "" if path == MEMORY else why_unusable(path) or other_format(path, format)
