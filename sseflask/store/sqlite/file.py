"""An SQLite file that all processes of one machine share: opening it, transactions, errors.

With write-ahead logging readers never wait for a writer. The file can't be on a network file system
(https://www.sqlite.org/wal.html).
"""

from __future__ import annotations

import contextlib
import fcntl
import sqlite3
import struct
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sseflask.defaults import MEMORY
from sseflask.logs.once import warn_once
from sseflask.loop.native import original
from sseflask.store.api import Extent, StoreError
from sseflask.store.sqlite import private_files
from sseflask.store.sqlite.commit_mark import commit_mark, pages_to_copy

#: Seconds that a write waits for one of another process.
_BUSY_SECONDS = 5.0

#: Seconds between two looks at the lock that is held while a file is opened.
_LOCK_PAUSE = 0.005

#: Bytes to which the write-ahead log shrinks once it has been copied.
_WAL_BYTES = 16 << 20

#: Pages in the write-ahead log from which on each commit copies it into the file, if it can. The
#: thread of a store does so before, see `WalCopying`.
_WAL_PAGES = 3000

#: The first bytes of a database: its user_version and application_id
#: (https://www.sqlite.org/fileformat.html, section 1.3).
_HEAD = struct.Struct(">60xI4xI")

#: What SQLite says, and what to do about it.
_ADVICE = (
    ("full", "Make room on its disk; nothing else has to be done."),
    ("readonly", "Its disk or directory is read-only."),
    ("locked", f"Another process has been writing to it for more than {_BUSY_SECONDS:.0f} s."),
    ("malformed", "It is damaged: stop, move it away and start again, without its history."),
    ("not a database", "Another file is in its place: move it away, or choose another path."),
)


class FileFormat(NamedTuple):
    """The marks of a kind of file."""

    application: int  # tells it from other programs' databases
    version: int  # tells it from the same kind of file of another version of sseflask

    @property
    def unfinished(self) -> int:
        """The mark, in place of ``application``, of a file that is being moved to."""
        return self.application | 0x80

    def why_not(self, path: str, application: int, version: int) -> str:
        """Why a file with other marks can't be used, in one line; empty if it can."""
        if application == self.unfinished:
            return (
                f"{path} is not complete, as a move was broken off: run sseflask migrate again, or "
                "delete it"
            )
        if application != self.application:
            return f"{path} is another program's database: choose another path"
        if version == self.version:
            return ""
        which = "a newer" if version > self.version else "an older"
        return (
            f"{path} was made by {which} version of sseflask (its format is {version}, this "
            f"version knows {self.version}): move it away to begin without its history, or install "
            "that version again"
        )


class SqliteFile(ABC):
    """One connection to a file or ``":memory:"``, made and used by one thread.

    All methods may block, and raise `StoreError` if the file can't be used; it can be used again as
    soon as that has passed. Other processes may use the file at the same time.
    """

    def __init__(self, path: str, name: str) -> None:
        self.path = path
        self._name = name
        self._database: sqlite3.Connection | None = None
        self._identity: tuple[int, ...] | None = None
        self._noted: tuple[int, int] | None = None
        self._version = -1
        self._index: int | None = None
        self._locking = "NORMAL"

    def _begin_use(self, database: sqlite3.Connection) -> None:
        """The file is open. In a write transaction."""
        self._prepare(database)

    @abstractmethod
    def _prepare(self, database: sqlite3.Connection) -> None:
        """Make what is missing in the file. In a write transaction."""

    @abstractmethod
    def trim(self) -> int:
        """Delete a bounded number of things that are too old, or too many. Returns how many."""

    @abstractmethod
    def extent(self) -> Extent:
        """How much there is."""

    def open(self, *, alone: bool = False) -> None:
        """Open the file, or raise `StoreError`; make it and its folder if they are not there.

        ``alone``: not if another process has it open; none can open it before it is closed.
        """
        self.close()
        self._locking = "EXCLUSIVE" if alone else "NORMAL"
        with self._translating_errors("opened"):
            if self.path == MEMORY:
                self._connect()
                return
            path = Path(self.path)
            private_files.make_folder(path.parent)
            private_files.check_ownership(
                self.path, ("", "-wal", "-shm", "-journal", ".lock", ".wake")
            )
            if warning := private_files.folder_warning(self.path):
                warn_once(f"The folder of the {self._name} is open to others: {warning}.")
            # One process at a time: if several create a file, or switch it to write-ahead logging,
            # some get an error from SQLite instead of waiting.
            with open(private_files.open_lock(f"{self.path}.lock"), "rb") as lock:  # noqa: PTH123  # a descriptor
                _lock(lock.fileno())
                if not path.exists():
                    # SQLite would take what a deleted file has left for parts of the new one.
                    for suffix in ("-wal", "-shm", "-journal"):
                        Path(self.path + suffix).unlink(missing_ok=True)
                    private_files.make_private(self.path)
                self._connect()
                self._identity = self._identify()

    def _connect(self) -> None:
        # Absolute, as SQLite takes a path that begins with "file:" for a URI
        # (https://www.sqlite.org/uri.html).
        path = self.path if self.path == MEMORY else str(Path(self.path).absolute())
        self._noted = None if path == MEMORY else private_files.note_opened(path)
        try:
            self._database = sqlite3.connect(
                path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            # Before anything is read: https://www.sqlite.org/pragma.html#pragma_locking_mode
            self._database.execute(f"PRAGMA locking_mode = {self._locking}").fetchone()
            (mode,) = self._database.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode not in ("wal", "memory"):
                raise sqlite3.OperationalError(f"no write-ahead logging here, but {mode!r}")
            self._database.execute("PRAGMA synchronous = NORMAL")
            self._database.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}").fetchone()
            with self.writing("opened") as database:
                self._begin_use(database)
            if self._noted is not None:
                self._index = private_files.index_of(self._noted, path)
            if self.pages_to_copy() is not None:  # else SQLite's own number is left, 1,000
                self._database.execute(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES}").fetchone()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file; harmless when it is not open, and never an error."""
        database, self._database = self._database, None
        self._identity = self._index = None
        self._version = -1
        if database is not None:
            # The last process to close copies the write-ahead log. If that fails, the next one to
            # open does.
            with contextlib.suppress(sqlite3.Error):
                database.close()
        held, self._noted = self._noted, None
        if held is not None:
            private_files.note_closed(held)

    def truncate_wal(self) -> None:
        """Empty the write-ahead log if it is long, unless a process reads or writes just now.

        SQLite does so by itself, but only when no process reads or writes.
        """
        with contextlib.suppress(FileNotFoundError):
            if Path(f"{self.path}-wal").stat().st_size > _WAL_BYTES:
                with self.using("written") as database:
                    database.execute("PRAGMA busy_timeout = 0").fetchone()
                    try:
                        database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                    finally:
                        database.execute(f"PRAGMA busy_timeout = {_BUSY_SECONDS * 1000:.0f}")

    def pages_to_copy(self) -> int | None:
        """See `pages_to_copy`. ``None`` while the file is not open. Any thread; never blocks."""
        return pages_to_copy(self._index)

    def copy_wal(self) -> None:
        """Copy the write-ahead log into the file, except what others are still reading past.

        Others may write meanwhile. If there is no room the log keeps it all, and who makes it
        longer is told.
        """
        with contextlib.suppress(sqlite3.Error):
            self._opened().execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()

    @contextlib.contextmanager
    def using(self, done: str = "read") -> Iterator[sqlite3.Connection]:
        """The connection, for a single statement."""
        with self._translating_errors(done):
            yield self._opened()

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, for some statements that see the same state."""
        with self._translating_errors("read"), self._transaction("BEGIN") as database:
            yield database

    @contextlib.contextmanager
    def writing(self, done: str = "written") -> Iterator[sqlite3.Connection]:
        """The connection, for a transaction that is stored as a whole or not at all."""
        # Immediate: a transaction that begins by reading can't wait for another writer later.
        with self._translating_errors(done), self._transaction("BEGIN IMMEDIATE") as database:
            yield database

    def changed(self) -> bool:
        """Whether other processes may have written since `_note_version` was called."""
        with self.using() as database:
            return bool(database.execute("PRAGMA data_version").fetchone()[0] != self._version)

    def _note_version(self, database: sqlite3.Connection) -> None:
        """Called before the file is read: what is written meanwhile is then a change again."""
        (self._version,) = database.execute("PRAGMA data_version").fetchone()

    def commit_mark(self) -> bytes:
        """See `commit_mark`. Empty while the file is not open. Any thread; never blocks."""
        return commit_mark(self._index)

    def replaced(self) -> bool:
        """Whether the open file, or its write-ahead log, has been replaced or deleted."""
        return self._identity is not None and self._identify() != self._identity

    def _identify(self) -> tuple[int, ...]:
        """Identify the file and its write-ahead log, which belong together while it is open."""
        try:
            found = [Path(self.path + suffix).stat() for suffix in ("", "-wal")]
        except OSError:
            return ()
        return tuple(number for each in found for number in (each.st_dev, each.st_ino))

    def _opened(self) -> sqlite3.Connection:
        if self._database is None:
            raise StoreError(f"the {self._name} {self.path} is not open")
        return self._database

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        database = self._opened()
        database.execute(begin)
        try:
            yield database
            database.execute("COMMIT")
        except BaseException:
            # After some errors SQLite has already rolled back by itself.
            if database.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    database.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def _translating_errors(self, done: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            reason = "" if self.path == MEMORY else private_files.why_unusable(self.path)
            advice = [advice for words, advice in _ADVICE if words in str(error) and not reason]
            message = f"the {self._name} {self.path} can't be {done}: {error}."
            if reason and reason != str(error):
                advice.append(f"{reason[:1].upper()}{reason[1:]}.")
            raise StoreError(" ".join([message, *advice])) from error


def _lock(descriptor: int) -> None:
    sleep = original("time", "sleep")  # gevent's would not do in a native thread
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise OSError("another process has locked it and does not go on") from None
            sleep(_LOCK_PAUSE)


def is_new(database: sqlite3.Connection, path: str, format: FileFormat) -> bool:
    """Whether a database has no tables; it then gets its marks. `StoreError` if it has others."""
    if not database.execute("SELECT 1 FROM sqlite_master").fetchone():
        database.execute(f"PRAGMA application_id = {format.application}")
        database.execute(f"PRAGMA user_version = {format.version}")
        return True
    (application,) = database.execute("PRAGMA application_id").fetchone()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if reason := format.why_not(path, application, version):
        raise StoreError(reason)
    return False


def other_format(path: str, format: FileFormat) -> str:
    """Why a file's first bytes rule it out, and what to do; empty if they don't, or it is open."""
    try:
        head = private_files.first_bytes(path, _HEAD.size)
    except OSError:
        return ""  # opening it will say why
    if head is None or len(head) < _HEAD.size:
        return ""
    version, application = _HEAD.unpack(head)
    # A new file has no marks yet: they are still in its write-ahead log.
    return format.why_not(path, application, version) if application or version else ""


def boot_id() -> str:
    """Tells this run of the machine from its others; empty if the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def used_bytes(database: sqlite3.Connection) -> int:
    """What is used of the file; the rest is free, and used again."""
    pages, free, size = (
        database.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    used: int = (pages - free) * size
    return used
