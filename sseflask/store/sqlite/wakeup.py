"""Wakes a store's thread from its own process, and takes messages between those of the machine.

Each is a datagram. The thread waits with the standard library's own ``poll``, which stays out of
gevent's event loop.
"""

from __future__ import annotations

import _socket
import contextlib
import errno
import os
import secrets
import select
import time
from math import ceil
from pathlib import Path

from sseflask.loop import native
from sseflask.loop.native import original
from sseflask.store.sqlite.private_files import make_folder

#: The longest address of a socket, in bytes (Linux has 108 with the zero at the end).
_ADDRESS_BYTES = 103

#: Seconds after which the directory is listed again even if its mtime is unchanged: two processes
#: may come within one tick of it.
_LIST_SECONDS = 0.25


#: The longest message, in bytes: several of them are in a socket's buffer.
MESSAGE_BYTES = 1 << 14

#: Messages that are taken at once, and their number from which on others may have been lost: the
#: system holds eleven for a process, or more.
_AT_ONCE, _MANY = 100, 8

_FULL = (errno.EAGAIN, errno.ENOBUFS)

#: To see what there is, without saying what.
LOOK = b"\0"


class WakeupSocket:
    """The sockets of one process that uses a store. Made before the thread that waits with it.

    They are beside the store's file, in ``<path>.wake``; ``None`` if there are no other processes.

    Attributes:
        watched: a descriptor that is readable if other processes have sent something.
    """

    def __init__(self, path: str | None) -> None:
        self._directory = None if path is None else Path(f"{path}.wake")
        self.name = f"{os.getpid()}.{secrets.token_hex(4)}"  # containers have the same pids
        self._signalled = False
        self._in_loop = False
        self._others: list[str] = []
        self._listed = (0, 0.0)
        self._handle = -1
        self._inbox: _socket.socket | None = None
        self._inbox_lock = native.lock()
        self._inboxes = original("select", "epoll")()
        self.watched: int = self._inboxes.fileno()
        self._outbox, self._bell = (
            _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM) for _ in range(2)
        )
        self._in, self._out = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_DGRAM)
        self._sockets = (self._outbox, self._bell, self._in, self._out)
        for socket in self._sockets:
            socket.setblocking(False)
        self._poll = original("select", "poll")()
        for descriptor in (self._in.fileno(), self.watched):
            self._poll.register(descriptor, select.POLLIN)

    def leave_to_loop(self) -> None:
        """Have an event loop watch `watched`: `wait` does not end any more with what comes there.

        Before the thread waits. The loop's owner calls `close_watched` at the end.
        """
        self._poll.unregister(self.watched)
        self._in_loop = True

    def close_watched(self) -> None:
        self._inboxes.close()

    def open(self) -> None:
        """Let other processes wake this one, if the folder can be written to. Harmless to repeat.

        The waiting thread only. Makes again what was deleted.
        """
        if self._directory is None:
            return
        with contextlib.suppress(OSError):
            if self._inbox is not None and (self._directory / self.name).exists():
                return
            self._leave()
            make_folder(self._directory)
            self._handle = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            inbox = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
            inbox.setblocking(False)
            try:
                inbox.bind(self._address(self.name))
                os.chmod(self.name, 0o600, dir_fd=self._handle)
            except OSError:
                inbox.close()
                raise
            self._inbox = inbox
            self._inboxes.register(inbox.fileno(), select.EPOLLIN)

    def close(self) -> None:
        """Close all sockets. The waiting thread only, as its last act."""
        self._leave()
        for socket in self._sockets:
            socket.close()
        if not self._in_loop:
            self.close_watched()

    def _leave(self) -> None:
        if self._inbox is not None:
            with self._inbox_lock:
                self._inbox.close()
                self._inbox = None
            self._remove(self.name)
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
        self._others, self._listed = [], (0, 0.0)

    def wait(self, seconds: float) -> bool:
        """Wait for a wake-up since the last call. Returns whether there are messages.

        The waiting thread only. What was handed over before a `wake` is there afterwards.
        """
        readable = {descriptor for descriptor, _ in self._poll.poll(max(0, ceil(seconds * 1000)))}
        if self._in.fileno() in readable:
            with contextlib.suppress(OSError):
                while True:
                    self._in.recv(16)
        # After the last byte was read, and before the caller looks at what there is to do: what is
        # handed over from here on sends another byte.
        self._signalled = False
        return self.watched in readable

    def messages(self) -> tuple[list[bytes], bool]:
        """Take what other processes have sent; and whether that may not be all of it.

        Never blocks. One thread only: the one that waits, or the loop's.
        """
        taken: list[bytes] = []
        with self._inbox_lock, contextlib.suppress(OSError):
            while self._inbox is not None and len(taken) < _AT_ONCE:
                taken.append(self._inbox.recv(MESSAGE_BYTES))
        return taken, len(taken) >= _MANY

    def wake(self) -> None:
        """Wake the waiting thread. Any thread or greenlet; never blocks, never raises."""
        if not self._signalled:
            self._signalled = True
            with contextlib.suppress(OSError):  # full: it is awake; closed: it is gone
                self._out.send(b"\0")

    @property
    def has_others(self) -> bool:
        """Whether other processes use the store, as far as is known. Any thread."""
        return bool(self._list())

    def wake_others(self, message: bytes = LOOK) -> list[str]:
        """Send the others a message, without blocking. Returns the names of those that are alive.

        They are sent `LOOK` instead if it is too long, or if the system has no room for it. Who is
        not even sent that has many messages, and is told so by `messages`.
        """
        if len(message) > MESSAGE_BYTES:
            message = LOOK
        return [name for name in self._list() if self._send(name, message)]

    def _send(self, name: str, message: bytes) -> bool:
        address = self._address(name)
        try:
            try:
                self._outbox.sendto(message, address)
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                # Perhaps others have not taken what this socket has sent, and this one has nothing.
                self._bell.sendto(LOOK, address)
        except OSError as error:
            if error.errno == errno.ECONNREFUSED:  # its process is dead
                self._remove(name)
            return error.errno in _FULL  # else it is gone: the next list is without it
        return True

    def _list(self) -> list[str]:
        if self._handle < 0:
            return []
        try:
            changed, now = os.fstat(self._handle).st_mtime_ns, time.monotonic()
            if changed != self._listed[0] or now >= self._listed[1] + _LIST_SECONDS:
                with os.scandir(self._handle) as entries:
                    names = [entry.name for entry in entries]
                self._others = [name for name in names if name != self.name]
                self._listed = (changed, now)
        except OSError:
            self._others = []
        return self._others

    def _remove(self, name: str) -> None:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=self._handle)

    def _address(self, name: str) -> str:
        address = f"{self._directory}/{name}"
        if len(os.fsencode(address)) <= _ADDRESS_BYTES:
            return address
        return f"/proc/self/fd/{self._handle}/{name}"
