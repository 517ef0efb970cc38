"""The wakeup: rings are not lost, others are reached, and the dead are forgotten."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from sseflask.store.sqlite.wakeup import WakeupSocket
from tests.processes import ROOT

#: Far more than a ring takes; a wait that lasts so long was not rung.
LONG = 20.0


@contextmanager
def wakeup(path: Path | None) -> Iterator[WakeupSocket]:
    made = WakeupSocket(None if path is None else str(path))
    made.open()
    try:
        yield made
    finally:
        made.close()


def rung(waiting: WakeupSocket) -> bool:
    """Wait for a ring, and whether one came."""
    begun = time.monotonic()
    waiting.wait(LONG)
    return time.monotonic() < begun + LONG / 2


def silent(waiting: WakeupSocket) -> bool:
    """Whether nobody has rung."""
    begun = time.monotonic()
    waiting.wait(0.05)
    return time.monotonic() >= begun + 0.04


def test_a_ring_before_the_wait_counts_once() -> None:
    with wakeup(None) as own:
        for _ in range(10_000):
            own.wake()
        assert rung(own)
        assert silent(own)
        own.wake()
        assert rung(own)


def test_no_ring_is_lost_between_threads() -> None:
    amount, handed, taken = 20_000, list[int](), 0
    with wakeup(None) as own:

        def ring() -> None:
            for number in range(amount):
                handed.append(number)
                own.wake()

        threads = [threading.Thread(target=ring) for _ in range(3)]
        for thread in threads:
            thread.start()
        while taken < 3 * amount:
            assert rung(own)
            taken = len(handed)
        for thread in threads:
            thread.join()


def test_others_are_rung_and_not_the_own(tmp_path: Path) -> None:
    with ExitStack() as stack:
        bells = [stack.enter_context(wakeup(tmp_path / "log.db")) for _ in range(4)]
        bells[0].wake_others()
        assert all(rung(other) for other in bells[1:])
        assert all(silent(each) for each in bells)
        late = stack.enter_context(wakeup(tmp_path / "log.db"))
        time_limit = time.monotonic() + LONG
        while silent(late):
            bells[0].wake_others()
            assert time.monotonic() < time_limit
        # More rings than anybody has taken are no error, and do not block.
        for _ in range(5_000):
            bells[0].wake_others()
        assert rung(late)
    assert list((tmp_path / "log.db.wake").iterdir()) == []


def test_a_path_too_long_for_a_socket(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 120) / "log.db"
    with wakeup(path) as one, wakeup(path) as two:
        one.wake_others()
        assert rung(two)
        two.wake_others()
        assert rung(one)


def test_the_bell_of_a_killed_process_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    code = (
        "import sys; from sseflask.store.sqlite.wakeup import WakeupSocket; "
        "wakeup = WakeupSocket(sys.argv[1]); wakeup.open(); "
        "print('open', flush=True); sys.stdin.read()"
    )
    with (
        wakeup(path) as own,
        subprocess.Popen(
            [sys.executable, "-c", code, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        ) as child,
    ):
        assert child.stdout is not None
        assert child.stdout.readline() == b"open\n"
        directory = tmp_path / "log.db.wake"
        assert len(list(directory.iterdir())) == 2
        child.kill()
        child.wait(LONG)
        assert len(list(directory.iterdir())) == 2
        own.wake_others()
        assert len(list(directory.iterdir())) == 1
        own.wake_others()


def test_a_deleted_bell_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    directory = tmp_path / "log.db.wake"
    with wakeup(path) as one, wakeup(path) as two:
        for file in directory.iterdir():
            file.unlink()
        directory.rmdir()
        one.wake_others()
        assert silent(two)
        one.open()
        two.open()
        one.wake_others()
        assert rung(two)


def test_a_file_that_is_no_socket_harms_nobody(tmp_path: Path) -> None:
    with wakeup(tmp_path / "log.db") as one, wakeup(tmp_path / "log.db") as two:
        (tmp_path / "log.db.wake" / "file").write_text("")
        (tmp_path / "log.db.wake" / "directory").mkdir()
        one.wake_others()
        assert rung(two)


def test_where_no_bell_can_be_hung_there_is_the_own(tmp_path: Path) -> None:
    (tmp_path / "log.db.wake").write_text("a file")
    with wakeup(tmp_path / "log.db") as own:
        own.wake_others()
        own.wake()
        assert rung(own)


def test_ringing_a_closed_bell_is_harmless(tmp_path: Path) -> None:
    with wakeup(tmp_path / "log.db") as own:
        pass
    own.wake()
    own.wake_others()


@pytest.mark.parametrize("path", [None, "log.db"])
def test_no_descriptor_is_left_behind(tmp_path: Path, path: str | None) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        with wakeup(None if path is None else tmp_path / path) as own:
            own.wake()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
