"""A server of runs that commits the given fault, and of channels without one.

python -m tests.benchmarks.scripted_runs <port> <fault>
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
import urllib.request
from urllib.parse import urlsplit

from tests.benchmarks import scripted_channels
from tests.benchmarks.scripted_server import Server

FAULTY = 4
"""The frame with which something goes wrong, in every run."""

_numbers = itertools.count(1)


class Run:
    """What the upstream has sent for one request, kept for all viewers."""

    def __init__(self, fault: str) -> None:
        number = 1 if fault == "shared" else next(_numbers)
        self.id = f"{number:032x}"
        self.viewers = 0
        self._fault = fault
        self._changed = threading.Condition()
        self._frames: list[bytes] = []
        self._ended = False

    def relay(self) -> None:
        """Take the upstream's frames until it ends."""
        url = f"{os.environ['OPENAI_BASE_URL']}/chat/completions"
        with urllib.request.urlopen(url, data=b"{}") as response:
            frame = b""
            for line in response:
                frame += line
                if line == b"\n":
                    self._add(frame)
                    frame = b""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _add(self, frame: bytes) -> None:
        with self._changed:
            self._frames.append(frame)
            self._changed.notify_all()

    def _frame(self, number: int) -> bytes | None:
        """Wait for a frame; None if the run ends before it."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._frames) >= number or self._ended)
            return self._frames[number - 1] if number <= len(self._frames) else None

    def send(self, viewer: Handler, spoiled: bool) -> None:
        """Send all frames to one viewer as they come."""
        fault = self._fault if spoiled else ""
        for number in itertools.count(1):
            frame = self._frame(number)
            if frame is None:
                break
            for piece in self._numbered(number, frame, fault):
                viewer.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            if number == FAULTY and fault == "cut":
                return
        viewer.wfile.write(b"0\r\n\r\n")

    def _numbered(self, number: int, frame: bytes, fault: str) -> list[bytes]:
        """Give a frame with its id, as often as it is to be sent."""
        faulty = number == FAULTY
        run = self.id
        shown = str(number)
        if (faulty and fault == "lost") or (fault == "no end" and b"[DONE]" in frame):
            return []
        if faulty and fault == "no id":
            return [frame]
        if faulty and fault == "garbled id":
            shown = "four"
        if faulty and fault == "other run":
            run = "f" * 32
        if number >= FAULTY and fault == "id left out":
            shown = str(number + 1)
        if number >= FAULTY and fault == "id twice":
            shown = str(number - 1)
        piece = f"id: {run}.{shown}\n".encode() + frame
        if self._fault == "comments":
            piece = b": ping\n\nretry: 3000\n" + piece
        return [piece] * (2 if faulty and fault == "doubled" else 1)


class Handler(scripted_channels.Handler):
    """A connection: one that starts a run, one that views it, or one of channels."""

    run_fault = ""
    runs: dict[str, Run]

    def do_GET(self) -> None:
        """Start a run, view one, or do what is asked of channels."""
        path = urlsplit(self.path).path
        if path == "/relay":
            run = Run(self.run_fault)
            with self.lock:
                self.runs[run.id] = run
            threading.Thread(target=run.relay, daemon=True).start()
            self.view(run, spoiled=True)
        elif path.startswith("/runs/"):
            with self.lock:
                run = self.runs[path.removeprefix("/runs/")]
                run.viewers += 1
                spoiled = run.viewers == 2
            if self.run_fault == "full" and spoiled:
                self.answer(503)
            else:
                self.view(run, spoiled=spoiled)
        else:
            super().do_GET()

    def view(self, run: Run, *, spoiled: bool) -> None:
        """Answer with a run's frames."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        run.send(self, spoiled)
        self.close_connection = True


def main() -> None:
    """Serve until killed."""
    Handler.run_fault = sys.argv[2]
    Handler.channels = {}
    Handler.runs = {}
    with Server(("127.0.0.1", int(sys.argv[1])), Handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
