"""Moves what two SQLite files have, see `sseflask.store.transfer`."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from sseflask.defaults import MEMORY
from sseflask.store.api import EventLimits, StoreError
from sseflask.store.run_api import Ending, RunLimits
from sseflask.store.sqlite.event_transfer import MovedEvents
from sseflask.store.sqlite.moved_file import MovedFile
from sseflask.store.sqlite.run_transfer import MovedRuns
from sseflask.store.transfer import Counts, EventHead, Part, RunPart


class SqliteTransfer:
    """A `Transfer` of the files of events and of runs. While it is open no service can open them.

    A file that is marked was moved to, but not to the end: see `FileFormat.unfinished`. As a target
    one that is not there is made.
    """

    def __init__(
        self, events: str, runs: str, event_limits: EventLimits, run_limits: RunLimits
    ) -> None:
        self._events = MovedEvents(events, event_limits)
        self._runs = MovedRuns(runs, run_limits, Ending(b""))
        self._files: tuple[MovedFile, ...] = (self._events, self._runs)
        self._opened: list[MovedFile] = []
        self._keeps_runs = False  # they were moved before

    @property
    def name(self) -> str:
        return f"{self._events.path} and {self._runs.path}"

    # -- from it -----------------------------------------------------------------------------------

    def open(self, *, alone: bool = True) -> None:
        if reason := self._why_not_here():
            raise StoreError(reason)
        there = [file for file in self._files if Path(file.path).exists()]
        if not there:
            raise StoreError(f"neither {self._events.path} nor {self._runs.path} is there")
        for file in there:
            self._open(file, alone=alone)

    def _open(self, file: MovedFile, *, alone: bool = True) -> None:
        if file in self._opened:
            return
        try:
            file.open(alone=alone)
        except StoreError as error:
            cause = error.__cause__
            if isinstance(cause, sqlite3.OperationalError) and "locked" in str(cause):
                raise StoreError(
                    f"{file.path} is in use: stop the service, and try again"
                ) from error
            raise
        self._opened.append(file)

    def _why_not_here(self) -> str:
        paths = [file.path for file in self._files]
        return "what is in memory can't be moved: name a file" if MEMORY in paths else ""

    def head(self) -> EventHead | None:
        return self._events.head() if self._events in self._opened else None

    def counts(self) -> Counts:
        counts = Counts()
        if self._events in self._opened:
            self._events.count(counts)
        if self._runs in self._opened:
            self._runs.count(counts)
        return counts

    def parts(self) -> Iterator[Part]:
        if self._events in self._opened:
            yield from self._events.parts()
        if self._runs in self._opened:
            yield from self._runs.parts()

    def check_unchanged(self) -> None:
        """Nobody else could open the files."""

    # -- into it -----------------------------------------------------------------------------------

    def why_not(self, counts: Counts) -> str:
        if reason := self._why_not_here():
            return reason
        folder = Path(self._events.path).absolute().parent
        while not folder.exists():
            folder = folder.parent
        found = os.statvfs(folder)
        free = found.f_bavail * found.f_frsize
        if counts.room > free:
            return f"{folder} has {free >> 20} MiB left, and about {counts.room >> 20} are needed"
        for file in self._files:
            file.is_target = True
            if Path(file.path).exists():
                self._open(file)
        if self._events in self._opened and self._events.unfinished and self._has_runs_of(counts):
            self._keeps_runs = True
        for file in self._opened:
            if not file.is_empty and not (file is self._runs and self._keeps_runs):
                return (
                    f"{file.path} is not empty: if nobody needs what it has, delete it, with "
                    f"{file.path}-wal and -shm if they are there; otherwise choose another place"
                )
        return ""

    def _has_runs_of(self, counts: Counts) -> bool:
        """Whether an earlier move was broken off at its very end, so that the runs are there."""
        if self._runs not in self._opened or self._runs.unfinished:
            return False
        found = Counts()
        self._runs.count(found)
        return (found.runs, found.frames) == (counts.runs, counts.frames)

    def begin(self) -> None:
        for file in self._files:
            file.is_target = True
            self._open(file)
        self._events.begin()
        if not self._keeps_runs:
            self._runs.begin()

    def take(self, part: Part) -> None:
        if not isinstance(part, RunPart):
            self._events.take(part)
        elif not self._keeps_runs:
            self._runs.take(part)

    def finish(self, head: EventHead | None) -> None:
        for file in self._files:
            file.checkpoint()
        if not self._keeps_runs:
            self._runs.finish()
        self._events.finish(head)
        for file in self._files:
            file.checkpoint()

    def abandon(self) -> None:
        self._events.abandon()
        if not self._keeps_runs:
            self._runs.abandon()

    def close(self) -> None:
        for file in self._files:
            file.close()
