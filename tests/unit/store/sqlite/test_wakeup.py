"""Wakeups are not lost, other processes are reached, and dead ones are forgotten."""

from __future__ import annotations

import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from sseflask.store.sqlite.wakeup import LOOK, MESSAGE_BYTES, WakeupSocket
from tests.processes import ROOT

#: Seconds, far more than a wakeup takes; a wait of this length was not woken.
LONG = 20.0


@contextmanager
def wakeup(path: Path | None) -> Iterator[WakeupSocket]:
    made = WakeupSocket(None if path is None else str(path))
    made.open()
    try:
        yield made
    finally:
        made.close()


def woken(waiting: WakeupSocket) -> bool:
    """Wait for a wakeup. Returns whether one came."""
    begun = time.monotonic()
    waiting.wait(LONG)
    waiting.messages()
    return time.monotonic() < begun + LONG / 2


def silent(waiting: WakeupSocket) -> bool:
    """Whether no wakeup has come."""
    begun = time.monotonic()
    waiting.wait(0.05)
    return time.monotonic() >= begun + 0.04


def test_wakeups_before_the_wait_count_once() -> None:
    with wakeup(None) as own:
        for _ in range(10_000):
            own.wake()
        assert woken(own)
        assert silent(own)
        own.wake()
        assert woken(own)


def test_no_wakeup_is_lost_between_threads() -> None:
    amount, handed, taken = 20_000, list[int](), 0
    with wakeup(None) as own:

        def wake() -> None:
            for number in range(amount):
                handed.append(number)
                own.wake()

        threads = [threading.Thread(target=wake) for _ in range(3)]
        for thread in threads:
            thread.start()
        while taken < 3 * amount:
            assert woken(own)
            taken = len(handed)
        for thread in threads:
            thread.join()


def test_others_are_woken_and_not_the_own(tmp_path: Path) -> None:
    with ExitStack() as stack:
        sockets = [stack.enter_context(wakeup(tmp_path / "store.db")) for _ in range(4)]
        sockets[0].wake_others()
        assert all(woken(other) for other in sockets[1:])
        assert all(silent(each) for each in sockets)
        late = stack.enter_context(wakeup(tmp_path / "store.db"))
        time_limit = time.monotonic() + LONG
        while silent(late):
            sockets[0].wake_others()
            assert time.monotonic() < time_limit
        # More wakeups than are read are no error, and do not block.
        for _ in range(5_000):
            sockets[0].wake_others()
        assert woken(late)
    assert list((tmp_path / "store.db.wake").iterdir()) == []


def test_messages_come_whole_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with wakeup(path) as one, wakeup(path) as two:
        sent = [b"first", b"", b"x" * MESSAGE_BYTES]
        for message in sent:
            assert one.wake_others(message) == [two.name]
        assert two.wait(LONG)
        assert two.messages() == (sent, False)
        assert two.messages() == ([], False)
        assert one.wake_others(b"x" * (MESSAGE_BYTES + 1)) == [two.name]
        assert two.messages() == ([LOOK], False)


def test_who_was_sent_more_than_the_system_holds_is_told(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with wakeup(path) as one, wakeup(path) as two:
        for number in range(2_000):
            assert one.wake_others(b"%d" % number + b"x" * 10_000) == [two.name]
        told = False
        while (taken := two.messages())[0]:
            told |= taken[1]
        assert told
        one.wake_others(b"more")
        assert two.messages() == ([b"more"], False)


def test_who_takes_nothing_does_not_keep_others_from_waking(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with wakeup(path) as one, ExitStack() as stack:
        for _ in range(8):  # together they hold all that one socket may have sent
            stack.enter_context(wakeup(path))
        for _ in range(12):
            one.wake_others(b"x" * MESSAGE_BYTES)
        late = stack.enter_context(wakeup(path))
        deadline = time.monotonic() + LONG
        while silent(late):
            one.wake_others(b"x" * MESSAGE_BYTES)
            assert time.monotonic() < deadline


def test_a_loop_can_watch_in_place_of_the_thread(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with wakeup(path) as one, wakeup(path) as two:
        two.leave_to_loop()
        with select.epoll() as loop:
            loop.register(two.watched, select.EPOLLIN)
            one.wake_others(b"message")
            assert silent(two)
            assert [descriptor for descriptor, _ in loop.poll(LONG)] == [two.watched]
            assert two.messages() == ([b"message"], False)
            assert loop.poll(0) == []
        two.wake()
        assert not two.wait(LONG)
    two.close_watched()


def test_a_path_too_long_for_a_socket(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 120) / "store.db"
    with wakeup(path) as one, wakeup(path) as two:
        one.wake_others()
        assert woken(two)
        two.wake_others()
        assert woken(one)


def test_the_socket_of_a_killed_process_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
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
        directory = tmp_path / "store.db.wake"
        assert len(list(directory.iterdir())) == 2
        child.kill()
        child.wait(LONG)
        assert len(list(directory.iterdir())) == 2
        own.wake_others()
        assert len(list(directory.iterdir())) == 1
        own.wake_others()


def test_a_deleted_socket_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    directory = tmp_path / "store.db.wake"
    with wakeup(path) as one, wakeup(path) as two:
        for file in directory.iterdir():
            file.unlink()
        directory.rmdir()
        one.wake_others()
        assert silent(two)
        one.open()
        two.open()
        one.wake_others()
        assert woken(two)


def test_a_file_that_is_no_socket_harms_nobody(tmp_path: Path) -> None:
    with wakeup(tmp_path / "store.db") as one, wakeup(tmp_path / "store.db") as two:
        (tmp_path / "store.db.wake" / "file").write_text("")
        (tmp_path / "store.db.wake" / "directory").mkdir()
        one.wake_others()
        assert woken(two)


def test_where_no_socket_can_be_made_the_own_process_is_still_woken(tmp_path: Path) -> None:
    (tmp_path / "store.db.wake").write_text("a file")
    with wakeup(tmp_path / "store.db") as own:
        own.wake_others()
        own.wake()
        assert woken(own)


def test_a_wakeup_of_a_closed_socket_is_harmless(tmp_path: Path) -> None:
    with wakeup(tmp_path / "store.db") as own:
        pass
    own.wake()
    own.wake_others()


@pytest.mark.parametrize("path", [None, "store.db"])
def test_no_descriptor_is_left_behind(tmp_path: Path, path: str | None) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        with wakeup(None if path is None else tmp_path / path) as own:
            own.wake()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
