"""Makes files that only this user can read, and says why a store's file can't be used.

If other users can write to the folder, as to ``/tmp``, they could have put a link or a file of
their own in the place of a store's.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
from collections import Counter
from pathlib import Path
from typing import Any

from sseflask.loop import native

_FOLDER, _FILE = 0o700, 0o600

#: Bytes that must be free: SQLite makes its files of a few pages.
_ROOM = 1 << 20

#: What every SQLite database begins with (https://www.sqlite.org/fileformat.html).
_MAGIC = b"SQLite format 3\0"

#: Held while one file is looked at.
_lock: Any = native.lock()

#: The number of times that this process has each file open as a database. When it closes any
#: descriptor of a file, POSIX drops all its locks on the file, SQLite's too. Another process that
#: closes the database then takes itself for the last one, and deletes the write-ahead log in use
#: (https://www.sqlite.org/howtocorrupt.html, section 2.2).
_open: Counter[tuple[int, int]] = Counter()

#: The descriptors of the indexes of their write-ahead logs. Closed after the last of them is: the
#: locks that would be dropped are on the index too.
_indexes: dict[tuple[int, int], int] = {}


def make_folder(folder: Path) -> None:
    """Make a folder and what is missing above it, for this user alone, whatever the umask."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        if folder == folder.parent:
            break
        folder = folder.parent
    for each in reversed(missing):
        try:
            each.mkdir(_FOLDER)
        except FileExistsError:
            if not each.is_dir():  # another process may have been faster
                raise
        else:
            each.chmod(_FOLDER)


def make_private(path: str) -> None:
    """Make an empty file for this user alone. `OSError` if there is even a link to nowhere."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE)
    try:
        os.fchmod(descriptor, _FILE)
    finally:
        os.close(descriptor)


def open_lock(path: str) -> int:
    """Open a file to lock, or make it for this user alone. `OSError` if it is a link."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    descriptor = os.open(path, flags, _FILE)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(f"{path} is not a file")
        if found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) != _FILE:
            os.fchmod(descriptor, _FILE)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def check_ownership(path: str, suffixes: tuple[str, ...]) -> None:
    """Check that a file, and those beside it with some suffixes, are not another user's traps.

    `OSError` if one is a link, or not this user's in a folder that can be written to by all.
    """
    folder = Path(path).parent
    if folder.is_symlink() and (owner := folder.lstat().st_uid) not in (os.geteuid(), 0):
        raise OSError(f"{folder} is a symbolic link of {_name(owner)}: name the folder itself")
    shared = _is_shared(folder)
    for suffix in suffixes:
        name = f"{path}{suffix}"
        try:
            found = os.lstat(name)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if stat.S_ISLNK(found.st_mode):
            raise OSError(f"{name} is a symbolic link: name the file itself")
        if shared and found.st_uid not in (os.geteuid(), 0):
            raise OSError(
                f"{name} belongs to {_name(found.st_uid)}, in a folder that all can write to: "
                "choose a folder of your own"
            )


def folder_warning(path: str) -> str:
    """What is wrong with the folder of a file, though it can be used; empty if nothing is."""
    folder = Path(path).absolute().parent
    with contextlib.suppress(OSError):
        found = folder.stat()
        if stat.S_IMODE(found.st_mode) & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
            return (
                f"everybody on this machine can replace {path}, as {folder} can be written to by "
                f"all: chmod o-w {folder}"
            )
        if found.st_uid not in (os.geteuid(), 0):
            return (
                f"{_name(found.st_uid)} can replace {path}, being the owner of {folder}: "
                f"chown {_name(os.geteuid())} {folder}"
            )
    return ""


def why_unusable(path: str) -> str:
    """Why a database can't be opened, as far as a look tells, and what to do; or empty."""
    file = Path(path).absolute()
    try:
        check_ownership(str(file), ("", "-wal", "-shm", ".lock"))
        for each in (file, *(Path(f"{file}{suffix}") for suffix in (".lock", "-wal", "-shm"))):
            if each.exists() and not each.is_file():
                return f"{each} is not a file: choose another path"
            if each.exists() and not _may(each, os.R_OK | os.W_OK):
                return _not_writable(each)
        folder = file.parent
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        if not folder.is_dir():
            return f"{folder} is not a folder: choose another path"
        if not _may(folder, os.W_OK | os.X_OK):
            return _not_writable(folder)
        room = os.statvfs(folder)
        if room.f_bavail * room.f_frsize < _ROOM:
            return f"the disk of {folder} is full: make room on it"
        if file.exists() and file.stat().st_size:
            magic = first_bytes(file, len(_MAGIC))
            if magic is not None and magic != _MAGIC:
                return f"{file} is not an SQLite database: move it away, or choose another path"
    except OSError as error:
        return str(error)
    return ""


def _may(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def _is_shared(folder: Path) -> bool:
    try:
        return bool(folder.stat().st_mode & stat.S_IWOTH)
    except OSError:
        return False


def _not_writable(path: Path) -> str:
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return f"{path} is on a read-only disk: choose another path"
    found, me = path.stat(), _name(os.geteuid())
    mode = f"{stat.S_IMODE(found.st_mode):04o}"
    return (
        f"{path} belongs to {_name(found.st_uid)} (mode {mode}) and can't be written to by {me}: "
        f"chown {me} {path}"
    )


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"


def note_opened(path: str | Path) -> tuple[int, int]:
    """Note that this process is about to open a database. Returns what `note_closed` takes."""
    with _lock:
        found = Path(path).stat()
        key = found.st_dev, found.st_ino
        _open[key] += 1
        return key


def note_closed(key: tuple[int, int]) -> None:
    with _lock:
        _open[key] -= 1
        if not _open[key]:
            del _open[key]
            descriptor = _indexes.pop(key, None)
            if descriptor is not None:
                os.close(descriptor)


def index_of(key: tuple[int, int], path: str) -> int | None:
    """A descriptor to read the index of a database's write-ahead log; ``None`` if it has none.

    ``key`` is what `note_opened` gave, and the database is open. The descriptor is closed when this
    process has closed the database as often as it has opened it.
    """
    with _lock:
        if key not in _indexes:
            try:
                _indexes[key] = os.open(f"{path}-shm", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except OSError:
                return None
        return _indexes[key]


def first_bytes(path: str | Path, amount: int) -> bytes | None:
    """Read the first bytes of a file; ``None`` while this process has it open as a database."""
    with _lock:
        found = Path(path).stat()
        if (found.st_dev, found.st_ino) in _open:
            return None
        with Path(path).open("rb") as opened:
            return opened.read(amount)
