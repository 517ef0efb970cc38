"""A server that streams numbered events and commits the given fault.

python -m tests.benchmarks.scripted_server <port> <fault>
"""

from __future__ import annotations

import itertools
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Iterator
from urllib.parse import parse_qs, urlsplit

from benchmarks.frames import FRAMES, PERIOD

_BLOCK = 500
_requests = itertools.count()

LOGGED = {
    "warns": "2026-01-02 03:04:05,678 [9] [WARNING] A stream was late.",
    "informs": "2026-01-02 03:04:05,678 [9] [INFO] A run has ended.",
}
"""Lines on standard error, before the response."""


def _numbers(fault: str, count: int) -> Iterator[int]:
    middle = count // 2
    for number in range(count):
        if fault == "early" and number == middle:
            return
        if number == middle and fault == "drop":
            continue
        if number == middle and fault == "swap":
            yield number + 1
            continue
        if number == middle + 1 and fault == "swap":
            yield number - 1
            continue
        yield number
        if number == middle and fault == "repeat":
            yield number


def _flood_frame(number: int) -> bytes:
    return FRAMES[number % PERIOD]


def _tick_frame(number: int) -> bytes:
    return b"data: %d\n\n" % number


class Handler(socketserver.StreamRequestHandler):
    """One request a connection."""

    fault = ""

    def handle(self) -> None:
        """Answer with as many events as the query asks for, spoiled by the fault."""
        first = self.rfile.readline().decode()
        if not first:
            return
        while self.rfile.readline() not in (b"\r\n", b""):
            pass
        target = urlsplit(first.split()[1])
        query = parse_qs(target.query)
        count = int(query["count"][0])
        if self.fault in LOGGED:
            sys.stderr.write(f"{LOGGED[self.fault]}\n")
            sys.stderr.flush()
        if self.fault == "mute" and next(_requests) % 4 == 1:
            threading.Event().wait()
        if self.fault == "status":
            self.wfile.write(b"HTTP/1.1 503 Sorry\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
            return
        self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        if target.path == "/flood":
            self._send(count, _flood_frame, block=_BLOCK, pause=0)
        else:
            self._send(count, _tick_frame, block=1, pause=1 / float(query["rate"][0]))

    def _send(self, count: int, frame: Callable[[int], bytes], block: int, pause: float) -> None:
        numbers = _numbers(self.fault, count)
        sent = 0
        while batch := list(itertools.islice(numbers, block)):
            time.sleep(pause)
            body = b"".join(map(frame, batch))
            if self.fault == "comments":
                body = b": ping\n" + body
            self.wfile.write(b"%x\r\n%b\r\n" % (len(body), body))
            sent += len(batch)
            if sent >= count // 2:
                if self.fault == "stall":
                    threading.Event().wait()
                if self.fault == "cut":
                    return
                if self.fault == "garbage":
                    self.wfile.write(b"not a chunk\r\n")
        self.wfile.write(b"0\r\n\r\n")


class Server(socketserver.ThreadingTCPServer):
    """One thread a connection."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


def main() -> None:
    """Serve until killed."""
    Handler.fault = sys.argv[2]
    with Server(("127.0.0.1", int(sys.argv[1])), Handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
