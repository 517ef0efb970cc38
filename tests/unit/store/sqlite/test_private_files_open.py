"""Looking at a database file must not drop the locks of the processes that have it open."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sseflask.store.api import StoreError
from sseflask.store.sqlite.file import FileFormat, SqliteFile, other_format
from sseflask.store.sqlite.private_files import why_unusable
from tests.unit.store.sqlite.databases import OneTable

#: What another process does: it reads, and closes the file as the only one would.
READ = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
print([text for text, in connection.execute("SELECT text FROM texts")])
connection.close()
"""


@pytest.fixture
def file(tmp_path: Path) -> Iterator[SqliteFile]:
    file = OneTable(str(tmp_path / "log.db"), "log")
    file.open()
    yield file
    file.close()


def say(file: SqliteFile, text: str) -> None:
    with file.using("written") as database:
        database.execute("INSERT INTO texts VALUES (?)", (text,))


def read_elsewhere(file: SqliteFile) -> str:
    command = [sys.executable, "-c", READ, file.path]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def an_error(file: SqliteFile) -> None:
    with pytest.raises(StoreError), file.using("written") as database:
        database.execute("INSERT INTO nowhere VALUES (1)")


def a_look(file: SqliteFile) -> None:
    assert not why_unusable(file.path)


def a_look_at_its_format(file: SqliteFile) -> None:
    assert not other_format(file.path, FileFormat(1, 2))


@pytest.mark.parametrize("look", [an_error, a_look, a_look_at_its_format])
def test_what_is_stored_afterwards_is_there_for_all(
    file: SqliteFile, look: Callable[[SqliteFile], None]
) -> None:
    say(file, "before")
    look(file)
    assert read_elsewhere(file) == "['before']"
    assert not file.replaced(), "the write-ahead log is still there"
    say(file, "after")
    assert read_elsewhere(file) == "['before', 'after']"


def test_once_it_is_closed_it_is_looked_at_again(tmp_path: Path, file: SqliteFile) -> None:
    file.close()
    assert not why_unusable(file.path)
    Path(file.path).write_text("something else than a database")
    assert "is not an SQLite database" in why_unusable(file.path)
    for suffix in ("-wal", "-shm"):
        (tmp_path / f"log.db{suffix}").unlink(missing_ok=True)
    with pytest.raises(StoreError, match="not an SQLite database"):
        file.open()
    assert "is not an SQLite database" in why_unusable(file.path), "what failed to open is not held"
