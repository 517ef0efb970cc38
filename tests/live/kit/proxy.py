"""A TCP proxy that does to a stream what no well-behaved server does by itself.

aimock sends each frame whole and well-formed. In front of it this proxy cuts the bytes anywhere, in
the middle of characters too, and puts other frames in the place of some; in front of the service it
breaks connections in the middle of an answer.
"""

from __future__ import annotations

import contextlib
import random
import re
import socket
import struct
import threading
import time
from collections.abc import Sequence
from types import TracebackType

Alterations = Sequence[tuple[bytes, bytes]]


class Proxy:
    """Forwards every connection to a port of this machine, until the block is left.

    Args:
        target: the port.
        cut_after: the first event stream is broken after so many bytes (its head counts), or as
            soon as these bytes have come in one piece; the second as the second entry says, and so
            on; further ones are not.
        reset: whether a broken connection ends with RST in place of FIN.
        pieces: the largest piece in which bytes of a response are passed on, each in a packet of
            its own; 0 is as they come.
        alterations: what a frame (from ``data:`` to its blank line) is searched for, and what then
            stands in place of the whole frame's data; it must not be longer, as the frame's length
            has been told before it.
    """

    def __init__(
        self,
        target: int,
        *,
        cut_after: Sequence[int | bytes] = (),
        reset: bool = False,
        pieces: int = 0,
        alterations: Alterations = (),
    ) -> None:
        self.target = target
        self.cut_after = list(cut_after)
        self.reset = reset
        self.pieces = pieces
        self.alterations = alterations
        #: How many connections it has broken.
        self.broken = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._threads = [threading.Thread(target=self._accept)]
        self._open: set[socket.socket] = set()

    def __enter__(self) -> Proxy:
        self._threads[0].start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # A listener that is only closed goes on in a thread that waits for it.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(10)
        self._listener.close()
        for each in list(self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        assert not any(thread.is_alive() for thread in self._threads)
        for each in self._open:
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.target), timeout=20)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open |= {client, server}
            for work in (
                threading.Thread(target=self._requests, args=(client, server)),
                threading.Thread(target=self._responses, args=(server, client)),
            ):
                self._threads.append(work)
                work.start()

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := client.recv(65536):
                server.sendall(piece)
        # The one who asked has left: as if there were no proxy, the server learns of it at once.
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)

    def _responses(self, server: socket.socket, client: socket.socket) -> None:
        altering = _Altering(self.alterations)
        cutting = random.Random(1)
        left: int | bytes | None = None
        with contextlib.suppress(OSError):
            while piece := server.recv(65536):
                told = altering.feed(piece)
                if left is None and self.cut_after and b"text/event-stream" in told:
                    left = self.cut_after.pop(0)
                if isinstance(left, bytes) and left in told:
                    left = told.index(left) + len(left)
                if isinstance(left, int):
                    told, left = told[:left], left - len(told)
                self._send(client, told, cutting)
                if isinstance(left, int) and left <= 0:
                    self.broken += 1
                    break
        if isinstance(left, int) and left <= 0 and self.reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._open.discard(client)
            # The other thread waits in recv(): while it does, closing would send nothing.
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RD)
            client.close()
        for each in (client, server):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _send(self, client: socket.socket, told: bytes, cutting: random.Random) -> None:
        if not self.pieces:
            client.sendall(told)
            return
        at = 0
        while at < len(told):
            size = cutting.randint(1, self.pieces)
            client.sendall(told[at : at + size])
            at += size
            time.sleep(0.0002)  # so that its reader does not get two at once


class _Altering:
    """Puts other frames in the place of those that are looked for; holds unfinished ones back."""

    def __init__(self, alterations: Alterations) -> None:
        self._alterations = alterations
        self._held = b""

    def feed(self, piece: bytes) -> bytes:
        if not self._alterations:
            return piece
        held = self._held + piece
        last = held.rfind(b"data: ")
        cut = last if last >= 0 and b"\n\n" not in held[last:] else len(held)
        told, self._held = held[:cut], held[cut:]
        return re.sub(rb"data: (?P<data>[^\n]*)\n\n", self._altered, told)

    def _altered(self, frame: re.Match[bytes]) -> bytes:
        for wanted, other in self._alterations:
            if wanted in frame["data"]:
                assert len(other) <= len(frame["data"])
                return b"data: %s\n\n" % other.ljust(len(frame["data"]))
        return frame[0]
