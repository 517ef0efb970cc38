"""Wakes a store's thread: from its own process, and from the others of the machine.

Each wake-up is a byte in a datagram socket. The thread waits with the standard library's own
``poll``, which stays out of gevent's event loop.
"""

from __future__ import annotations

import _socket
import contextlib
import errno
import os
import secrets
import select
import time
from pathlib import Path

from sseflask.loop.native import original
from sseflask.store.sqlite.private_files import make_folder

#: The longest address of a socket, in bytes (Linux has 108 with the zero at the end).
_ADDRESS_BYTES = 103

#: Seconds after which the directory is listed again even if its mtime is unchanged: two processes
#: may come within one tick of it.
_LIST_SECONDS = 0.25


class WakeupSocket:
    """The sockets of one process that uses a store. Made before the thread that waits with it.

    They are beside the store's file, in ``<path>.wake``; ``None`` if there are no other processes.
    """

    def __init__(self, path: str | None) -> None:
        self._directory = None if path is None else Path(f"{path}.wake")
        self.name = f"{os.getpid()}.{secrets.token_hex(4)}"  # containers have the same pids
        self._signalled = False
        self._others: list[str] = []
        self._listed = (0, 0.0)
        self._handle = -1
        self._inbox: _socket.socket | None = None
        self._outbox = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
        self._in, self._out = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_DGRAM)
        for socket in (self._outbox, self._in, self._out):
            socket.setblocking(False)
        self._poll = original("select", "poll")()
        self._poll.register(self._in.fileno(), select.POLLIN)

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
            self._poll.register(inbox.fileno(), select.POLLIN)

    def close(self) -> None:
        """Close all sockets. The waiting thread only, as its last act."""
        self._leave()
        for socket in (self._outbox, self._in, self._out):
            socket.close()

    def _leave(self) -> None:
        if self._inbox is not None:
            self._poll.unregister(self._inbox.fileno())
            self._inbox.close()
            self._inbox = None
            self._remove(self.name)
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
        self._others, self._listed = [], (0, 0.0)

    def wait(self, seconds: float) -> bool:
        """Wait for a wake-up since the last call. Returns whether another process has sent one.

        The waiting thread only. What was handed over before a `wake` is there afterwards.
        """
        readable = {descriptor for descriptor, _ in self._poll.poll(max(0, round(seconds * 1000)))}
        outside = self._inbox is not None and self._inbox.fileno() in readable
        for socket in (self._in, self._inbox if outside else None):
            with contextlib.suppress(OSError):
                while socket is not None:
                    socket.recv(16)
        # After the last byte was read, and before the caller looks at what there is to do: what is
        # handed over from here on sends another byte.
        self._signalled = False
        return outside

    def wake(self) -> None:
        """Wake the waiting thread. Any thread or greenlet; never blocks, never raises."""
        if not self._signalled:
            self._signalled = True
            with contextlib.suppress(OSError):  # full: it is awake; closed: it is gone
                self._out.send(b"\0")

    @property
    def has_others(self) -> bool:
        """Whether other processes use the store, as far as is known. Any thread."""
        return self._handle >= 0 and bool(self._list())

    def wake_others(self) -> list[str]:
        """Wake the others without blocking for long. Returns the names of those that are alive."""
        alive: list[str] = []
        for name in self._list() if self._handle >= 0 else ():
            try:
                self._outbox.sendto(b"\0", self._address(name))
            except OSError as error:
                if error.errno == errno.ECONNREFUSED:  # its process is dead
                    self._remove(name)
                    continue
                if error.errno not in (errno.EAGAIN, errno.ENOBUFS):
                    continue  # gone: the next list is without it
                # Full: it will wake up anyway.
            alive.append(name)
        return alive

    def _list(self) -> list[str]:
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
