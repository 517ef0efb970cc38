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

from tests.scripted_upstream import cut, listening

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
            has been sent before it.
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
        self.port = 0
        self._listening = contextlib.ExitStack()

    def __enter__(self) -> Proxy:
        self.port = self._listening.enter_context(listening(self._serve, cut, 10))
        return self

    def __exit__(self, *raised: object) -> None:
        self._listening.close()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(ConnectionRefusedError):
            client.settimeout(None)
            with socket.create_connection(("127.0.0.1", self.target), timeout=20) as server:
                server.settimeout(None)
                requests = threading.Thread(target=self._requests, args=(client, server))
                requests.start()
                self._responses(server, client)
                requests.join()

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := client.recv(65536):
                server.sendall(piece)
        # The client has left: the server learns of it at once, as if there were no proxy.
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)

    def _responses(self, server: socket.socket, client: socket.socket) -> None:
        altering = _Altering(self.alterations)
        cutting = random.Random(1)
        left: int | bytes | None = None
        with contextlib.suppress(OSError):
            while piece := server.recv(65536):
                passed = altering.feed(piece)
                if left is None and self.cut_after and b"text/event-stream" in passed:
                    left = self.cut_after.pop(0)
                if isinstance(left, bytes) and left in passed:
                    left = passed.index(left) + len(left)
                if isinstance(left, int):
                    passed, left = passed[:left], left - len(passed)
                self._send(client, passed, cutting)
                if isinstance(left, int) and left <= 0:
                    self.broken += 1
                    break
        if isinstance(left, int) and left <= 0 and self.reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            # The other thread waits in recv(): while it does, closing would send nothing.
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RD)
            client.close()
        for each in (client, server):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _send(self, client: socket.socket, passed: bytes, cutting: random.Random) -> None:
        if not self.pieces:
            client.sendall(passed)
            return
        at = 0
        while at < len(passed):
            size = cutting.randint(1, self.pieces)
            client.sendall(passed[at : at + size])
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
        passed, self._held = held[:cut], held[cut:]
        return re.sub(rb"data: (?P<data>[^\n]*)\n\n", self._altered, passed)

    def _altered(self, frame: re.Match[bytes]) -> bytes:
        for wanted, other in self._alterations:
            if wanted in frame["data"]:
                assert len(other) <= len(frame["data"])
                return b"data: %s\n\n" % other.ljust(len(frame["data"]))
        return frame[0]
