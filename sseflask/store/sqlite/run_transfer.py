"""Moves the ended runs of an SQLite file, see `sseflask.store.transfer`."""

from __future__ import annotations

from collections.abc import Iterator

from sseflask.store.api import StoreError
from sseflask.store.run_api import FRAME_BYTES
from sseflask.store.sqlite.moved_file import MovedFile
from sseflask.store.sqlite.run_database import RunDatabase
from sseflask.store.sqlite.run_tables import FORMAT, NEWEST, read_frames
from sseflask.store.transfer import PART_ITEMS, Counts, RunPart

#: A run that has ended and is kept, as of some time, if for so long where its claim does not say.
_ENDED = "ended IS NOT NULL AND ended_at + coalesce(keep, ?) >= ?"


class MovedRuns(MovedFile, RunDatabase):
    """A file of runs, for the process that moves them."""

    format = FORMAT
    tables = ("runs", "frames", "forgotten", "watchers", "processes")

    # -- from it -----------------------------------------------------------------------------------

    def count(self, counts: Counts) -> None:
        with self.reading() as database:
            kept = (self._seconds, self._clock())
            (counts.running,) = database.execute(
                "SELECT count(*) FROM runs WHERE ended IS NULL"
            ).fetchone()
            (counts.runs,) = database.execute(
                f"SELECT count(*) FROM runs WHERE {_ENDED}", kept
            ).fetchone()
            frames, size = database.execute(
                "SELECT count(*), total(length(frame)) FROM frames"
                f" WHERE run IN (SELECT number FROM runs WHERE {_ENDED})",
                kept,
            ).fetchone()
            counts.frames += frames
            counts.bytes += int(size)

    def parts(self) -> Iterator[RunPart]:
        now, after = self._clock(), -1
        while True:
            with self.using() as database:
                # Few, as outcomes and notes may be large.
                rows = database.execute(
                    "SELECT number, id, subject, account, label, key, digest, ended - 1, outcome,"
                    f" notes, ? - ended_at, keep FROM runs WHERE number > ? AND {_ENDED}"
                    " ORDER BY number LIMIT 20",
                    (now, after, self._seconds, now),
                ).fetchall()
            for after, *head in rows:
                yield from self._run(after, head)
            if not rows:
                return

    def _run(self, number: int, head: list[object]) -> Iterator[RunPart]:
        first = 1
        while True:
            with self.using() as database:
                frames = [
                    frame for _, frame in read_frames(database, number, first - 1, PART_ITEMS)
                ]
            part = RunPart._make((*head, first, frames))
            if not frames and not part.ends:
                raise StoreError(f"{self.path} is damaged: a run lacks frames")
            yield part
            if part.ends:
                return
            first += len(frames)

    # -- into it -----------------------------------------------------------------------------------

    @property
    def is_empty(self) -> bool:
        if self.unfinished:
            return True
        with self.using() as database:
            return database.execute("SELECT 1 FROM runs LIMIT 1").fetchone() is None

    def take(self, part: RunPart) -> None:
        with self.writing() as database:
            if part.first == 1:
                self._run_number = database.execute(
                    "INSERT INTO runs (id, subject, account, label, key, digest, writer, place,"
                    " ended, outcome, notes, ended_at, keep)"
                    f" SELECT ?, ?, ?, ?, ?, ?, '', {NEWEST}, ?, ?, ?, ?, ?",
                    (
                        *(part.id, part.subject, part.account, part.label, part.key, part.digest),
                        *(part.last + 1, part.outcome, part.notes, self._now - part.age, part.keep),
                    ),
                ).lastrowid
                self._size = 0
            rows = []
            for number, frame in enumerate(part.frames, part.first):
                self._size += len(frame) + FRAME_BYTES
                rows.append((self._run_number, number, self._size, b"", frame))
            database.executemany(
                "INSERT INTO frames (run, number, size, notes, frame) VALUES (?, ?, ?, ?, ?)", rows
            )
            if part.ends:
                database.execute(
                    f"UPDATE runs SET upto = {NEWEST} WHERE number = ?", (self._run_number,)
                )

    def finish(self) -> None:
        with self.writing() as database:
            self._unmark(database)
