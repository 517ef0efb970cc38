"""A server of channels that commits the given fault.

python -m tests.benchmarks.scripted_channels <port> <fault>
"""

from __future__ import annotations

import json
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

from benchmarks.published_events import event
from tests.benchmarks.scripted_server import Server

FAULTY = 8
"""The publication with which something goes wrong: the warm-up is over by then."""

LATE = 5.0

INSTEAD = {"lost", "lost by the returned", "late", "doubled", "garbled", "ended", "cut"}
"""Faults of one subscriber, which does not get the publication as it should."""

_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Channel:
    """Its subscribers and what has been published, one after the other.

    A pattern and the channels of it are one: `u.*` has what is published to `u.1` and `u.2`, and
    that has ids.
    """

    def __init__(self, fault: str, with_ids: bool) -> None:
        self._fault = fault
        self._lock = threading.Lock()
        self._with_ids = with_ids
        self._subscribers: list[Handler] = []
        self._asked = 0
        self._published = 0
        self._spoiled = False
        self._returned = 0
        self._kept: list[bytes] = []
        """The frames that have ids."""

    def place(self) -> int:
        """Count one that subscribes."""
        with self._lock:
            self._asked += 1
            return self._asked

    def add(self, subscriber: Handler, last_id: str) -> None:
        """Begin a response with what came after an id; the rest follows as it is published."""
        with self._lock:
            self._returned += bool(last_id)
            if self._fault == "turned away" and self._returned == 1:
                subscriber.answer(503)
                subscriber.ended.set()
                return
            subscriber.wfile.write(_HEAD)
            if last_id:
                missed = self._kept[int(last_id) + 1 :]
                again = {"forgotten": missed[1:], "replayed twice": missed * 2}
                subscriber.send(again.get(self._fault, missed))
            if last_id and self._fault == "replay cut":
                subscriber.finish_stream(b"")
            self._subscribers.append(subscriber)

    def publish(self, events: Sequence[str]) -> bool:
        """Send events to all subscribers. Returns whether to tell the publisher that it worked."""
        with self._lock:
            frames = [f"data: {data}\n\n".encode() for data in events]
            faulty = self._published == FAULTY
            if self._fault == "lost by the returned":
                faulty = not self._spoiled and self._returned > 0
            self._spoiled = self._spoiled or faulty
            self._published += 1
            if faulty and self._fault in ("refused", "hung up"):
                return False
            if self._with_ids:
                first = len(self._kept)
                frames = [b"id: %d\n" % (first + i) + frame for i, frame in enumerate(frames)]
                self._kept += frames
            if not self._subscribers:
                return True
            *others, last = self._subscribers
            if self._fault == "comments":
                frames = [b": ping\n" + frame for frame in frames]
            for each in others:
                each.send(frames)
            if not faulty or not self._spoil(last, frames):
                last.send(frames)
            return True

    def end_all(self) -> None:
        """End all subscribers' streams, as a redeploy does."""
        with self._lock:
            for each in self._subscribers:
                each.finish_stream(b"" if self._fault == "cut by the redeploy" else b"0\r\n\r\n")
            self._subscribers.clear()

    def _spoil(self, subscriber: Handler, frames: list[bytes]) -> bool:
        """Commit the fault for one subscriber. Returns whether that replaces the right thing."""
        if self._fault == "late":
            threading.Timer(LATE, subscriber.send, [frames]).start()
        elif self._fault == "doubled":
            subscriber.send(frames + frames)
        elif self._fault == "garbled":
            subscriber.send([b"data: something else\n\n", *frames])
        elif self._fault == "ended":
            subscriber.finish_stream(b"0\r\n\r\n")
        elif self._fault == "cut":
            subscriber.finish_stream(b"")
        return self._fault in INSTEAD


class Handler(BaseHTTPRequestHandler):
    """A connection: a subscriber for ever, or a publisher of one event after the other."""

    protocol_version = "HTTP/1.1"
    server: Server
    fault = ""
    channels: dict[str, Channel]
    lock = threading.Lock()

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""

    def channel(self) -> Channel:
        """The channel that the path names."""
        name, dot, _ = urlsplit(self.path).path.rpartition("/")[2].partition(".")
        with_ids = bool(dot) and self.fault != "no ids"
        with self.lock:
            return self.channels.setdefault(name, Channel(self.fault, with_ids))

    def do_GET(self) -> None:
        """Answer that all is well, or subscribe."""
        if self.path == "/healthz":
            self.answer(503 if self.fault == "unwell" else 200)
            return
        self.ended = threading.Event()
        place = self.channel().place()
        if self.fault == "mute" and place == 2:
            self.ended.wait()
        if self.fault == "full" and place == 2:
            self.answer(503)
            return
        query = parse_qs(urlsplit(self.path).query)
        last_id = self.headers.get("Last-Event-ID") or query.get("last_event_id", [""])[0]
        self.channel().add(self, last_id)
        self.ended.wait()
        self.close_connection = True

    def do_POST(self) -> None:
        """Publish what was sent: an event, an array of them, or the requested number."""
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        events = [body]
        if self.path.startswith("/publish_array"):
            events = [each["data"] for each in json.loads(body)]
        channel = self.channel()
        worked = True
        if self.path.startswith("/publish_loop"):
            count = int(parse_qs(urlsplit(self.path).query)["count"][0])
            for number in range(count - (self.fault == "lost last")):
                worked = channel.publish([event(number).decode()]) and worked
            self.answer(200 if worked else 503)
            return
        worked = channel.publish(events)
        if not worked and self.fault == "hung up":
            self.close_connection = True
            return
        if self.fault == "closed" and body.startswith("1 "):
            self.server.socket.shutdown(socket.SHUT_RDWR)
        self.answer(201 if worked else 503)

    def answer(self, status: int) -> None:
        """Send a response without a body."""
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send(self, frames: Sequence[bytes]) -> None:
        """Send frames to a subscriber, a chunk each; one that does not read is given up."""
        data = b"".join(b"%x\r\n%b\r\n" % (len(frame), frame) for frame in frames)
        flags = 0 if self.fault == "waits" else socket.MSG_DONTWAIT
        try:
            given_up = self.connection.send(data, flags) < len(data)
        except OSError:
            given_up = True
        if given_up:
            self.ended.set()

    def finish_stream(self, ending: bytes) -> None:
        """End a subscriber's stream."""
        self.wfile.write(ending)
        self.ended.set()


def main() -> None:
    """Serve until killed."""
    Handler.fault = sys.argv[2]
    Handler.channels = {}

    def redeploy(*_: object) -> None:
        if Handler.fault != "not ended":
            # The main thread may hold a lock that this one takes.
            ending = [channel.end_all for channel in Handler.channels.values()]
            threading.Thread(target=lambda: [end() for end in ending]).start()

    signal.signal(signal.SIGHUP, redeploy)
    with Server(("127.0.0.1", int(sys.argv[1])), Handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
