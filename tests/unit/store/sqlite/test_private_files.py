"""Which other users can read, replace or lock a store's file."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sseflask.logs import once as notices
from sseflask.store.api import StoreError
from sseflask.store.sqlite import private_files
from sseflask.store.sqlite.file import SqliteFile
from sseflask.store.sqlite.private_files import folder_warning, why_unusable
from sseflask.store.sqlite.wakeup import WakeupSocket
from tests.unit.store.sqlite.databases import OneTable


@contextlib.contextmanager
def opened(path: Path) -> Iterator[SqliteFile]:
    file = OneTable(str(path), "log")
    file.open()
    try:
        yield file
    finally:
        file.close()


def refusal(path: Path) -> str:
    with pytest.raises(StoreError) as refused, opened(path):
        pass
    return str(refused.value)


@contextlib.contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    return {
        str(each.relative_to(folder)): stat.S_IMODE(each.lstat().st_mode)
        for each in folder.rglob("*")
    }


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o277])
def test_what_is_made_is_this_users_alone(tmp_path: Path, mask: int) -> None:
    path = tmp_path / "a" / "b" / "log.db"
    wakeup = WakeupSocket(str(path))
    with umask(mask), opened(path):
        wakeup.open()
        found = modes(tmp_path)
        wakeup.close()
    (socket,) = [name for name in found if name.startswith("a/b/log.db.wake/")]
    folders = dict.fromkeys(["a", "a/b", "a/b/log.db.wake"], 0o700)
    files = dict.fromkeys([*(f"a/b/log.db{end}" for end in ("", "-wal", "-shm", ".lock")), socket])
    assert found == {**folders, **dict.fromkeys(files, 0o600)}


def test_what_looks_like_a_uri_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite would use another file than the one that is made, and looked at."""
    monkeypatch.chdir(tmp_path)
    with opened(Path("file:log.db?mode=rwc")):
        assert stat.S_IMODE((tmp_path / "file:log.db?mode=rwc").stat().st_mode) == 0o600
    assert not (tmp_path / "log.db").exists()


def test_a_lock_that_others_could_hold_is_taken_from_them(tmp_path: Path) -> None:
    lock = tmp_path / "log.db.lock"
    lock.touch()
    lock.chmod(0o644)
    with opened(tmp_path / "log.db"):
        assert stat.S_IMODE(lock.stat().st_mode) == 0o600


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal", ".lock", ".wake"])
@pytest.mark.parametrize("there", [True, False])
def test_no_link_is_followed(tmp_path: Path, suffix: str, there: bool) -> None:
    target = tmp_path / "target"
    if there:
        target.touch()
    (tmp_path / f"log.db{suffix}").symlink_to(target)
    assert refusal(tmp_path / "log.db").endswith("is a symbolic link: name the file itself.")
    assert target.exists() == there
    assert not there or target.read_bytes() == b""


def test_a_folder_may_be_a_link_of_this_users(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    with opened(tmp_path / "link" / "log.db"):
        assert (tmp_path / "data" / "log.db").exists()


def test_a_lock_that_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log.db.lock")
    assert "is not a file" in refusal(tmp_path / "log.db")


@pytest.mark.parametrize("suffix", ["", "-wal", ".lock", ".wake"])
def test_nothing_of_others_is_used_where_they_can_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """As in /tmp: what is there is somebody else's, seen from a user whose number is another."""
    tmp_path.chmod(0o1777)
    (tmp_path / f"log.db{suffix}").touch()
    another = os.geteuid() + 1
    if not os.geteuid():  # whose files are trusted
        os.chown(tmp_path / f"log.db{suffix}", 2, 2)
    monkeypatch.setattr(os, "geteuid", lambda: another)
    assert "in a folder that all can write to" in refusal(tmp_path / "log.db")


def test_a_folder_that_is_open_to_all_is_warned_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "_warned", set())
    tmp_path.chmod(0o777)
    with caplog.at_level(logging.WARNING, "sseflask"):
        for _ in range(2):
            with opened(tmp_path / "log.db"):
                pass
    (record,) = caplog.records
    assert record.getMessage() == (
        f"The folder of the log is open to others: everybody on this machine can replace "
        f"{tmp_path}/log.db, as {tmp_path} can be written to by all: chmod o-w {tmp_path}."
    )
    tmp_path.chmod(0o1777)  # only the owner of a file can then replace it
    assert folder_warning(str(tmp_path / "log.db")) == ""


@contextlib.contextmanager
def nobody() -> Iterator[str]:
    """The name of a user that is not root."""
    if os.geteuid():
        yield private_files._name(os.geteuid())
        return
    os.seteuid(65_534)
    try:
        yield private_files._name(65_534)
    finally:
        os.seteuid(0)


def test_the_trouble_with_a_file_is_said_with_its_owner_and_what_to_do() -> None:
    me = private_files._name(os.geteuid())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        file = folder / "log.db"
        assert why_unusable(str(file)) == ""
        file.touch(0o600)
        assert why_unusable(str(file)) == ""
        file.chmod(0o000)
        with nobody() as user:
            assert why_unusable(str(file)) == (
                f"{file} belongs to {me} (mode 0000) and can't be written to by {user}: "
                f"chown {user} {file}"
            )
        file.unlink()
        folder.chmod(0o555)
        with nobody() as user:
            assert why_unusable(str(folder / "a" / "b.db")) == (
                f"{folder} belongs to {me} (mode 0555) and can't be written to by {user}: "
                f"chown {user} {folder}"
            )
        folder.chmod(0o755)
        assert why_unusable(str(folder)) == f"{folder} is not a file: choose another path"
        file.write_text("something else than a database")
        assert why_unusable(str(file)).startswith(f"{file} is not an SQLite database")
        inside = file / "log.db"
        assert why_unusable(str(inside)).startswith(f"{file} is not a folder")
        assert why_unusable("/dev/full/x.db").startswith("/dev/full is not a folder")


def test_what_is_in_the_way_stands_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "log.db").mkdir()
    shown = refusal(tmp_path / "log.db")
    assert shown.endswith(f" {tmp_path / 'log.db'} is not a file: choose another path.")
