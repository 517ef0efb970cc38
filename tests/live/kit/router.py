"""A router in front of an application, with the limits and error codes of Heroku's, in a process of
its own: ``python -m tests.live.kit.router FIRST_BYTE IDLE``, in seconds.

It prints its port, and then a line of JSON for each request that has ended: what Heroku's own log
would say. A line on its standard input is the port of the dyno that requests go to from now on;
with 0 they wait, as they do while a dyno boots.

https://devcenter.heroku.com/articles/http-routing
https://devcenter.heroku.com/articles/error-codes
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.live.kit.servers import ROOT, environment
from tests.live.kit.waiting import until

__all__ = ["Router", "router"]

_DESCRIPTIONS = {
    "H12": "Request timeout",
    "H13": "Connection closed without response",
    "H15": "Idle connection",
    "H18": "Server Request Interrupted",
    "H21": "Backend connection refused",
}


class _Answer:
    """What has been passed on of a response, and whether that is all of it."""

    def __init__(self) -> None:
        self.status = 503
        self.head = b""
        self._body = 0
        self._tail = b""

    def passed(self, piece: bytes) -> None:
        if b"\r\n\r\n" not in self.head:
            head, end, piece = (self.head + piece).partition(b"\r\n\r\n")
            self.head = head + end
            self.status = int(head.split(b" ", 2)[1])
        self._body += len(piece)
        self._tail = (self._tail + piece)[-5:]

    def complete(self) -> bool:
        fields = self.head.lower()
        if b"transfer-encoding: chunked" in fields:
            return self._tail == b"0\r\n\r\n"
        _, found, length = fields.partition(b"content-length: ")
        return not found or self._body == int(length.partition(b"\r\n")[0])


class _Routing:
    def __init__(self, first_byte: float, idle: float) -> None:
        self._first_byte, self._idle = first_byte, idle
        self._dyno = 0
        self._chosen = asyncio.Event()
        self._asking: set[_Answer] = set()

    async def choose(self, port: int) -> None:
        """From here on requests go there; those under way have at least their head."""
        self._dyno = port
        (self._chosen.set if port else self._chosen.clear)()
        asking = list(self._asking)
        while any(each in self._asking and not each.head for each in asking):
            await asyncio.sleep(0.005)
        print(json.dumps({"path": f"dyno {port}", "code": None}), flush=True)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request; its connection is closed afterwards."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            line, _, fields = head.partition(b"\r\n")
            _, found, length = fields.lower().partition(b"content-length: ")
            body = await reader.readexactly(int(length.partition(b"\r\n")[0]) if found else 0)
            await self._chosen.wait()
            answer = _Answer()
            self._asking.add(answer)
            asked = self._pass(self._dyno, line, fields, body, writer, answer)
            passing = asyncio.ensure_future(asked)
            passing.add_done_callback(lambda _: self._asking.discard(answer))
            leaving = asyncio.ensure_future(reader.read())
            await asyncio.wait((passing, leaving), return_when=asyncio.FIRST_COMPLETED)
            leaving.cancel()
            if passing.done():
                code = await passing
                if code and not answer.head:
                    page = f"<h1>Application error ({code})</h1>".encode()
                    size = len(page)
                    writer.write(
                        b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/html\r\n"
                        b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (size, page)
                    )
                self._log(line, code, answer)
            else:
                passing.cancel()  # the client has left
                with contextlib.suppress(asyncio.CancelledError):
                    await passing
        writer.close()

    async def _pass(
        self,
        port: int,
        line: bytes,
        fields: bytes,
        body: bytes,
        writer: asyncio.StreamWriter,
        answer: _Answer,
    ) -> str | None:
        """Ask the dyno, and pass its answer on; the code of what went wrong."""
        try:
            reader, dyno = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            return "H21"
        own = (
            b"X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Port: 443\r\n"
            b"Via: 1.1 vegur\r\nConnection: close\r\n"
        )
        try:
            dyno.write(line + b"\r\n" + own + fields + body)
            patience, code = self._first_byte, "H12"
            while True:
                try:
                    piece = await asyncio.wait_for(reader.read(65_536), patience)
                except asyncio.TimeoutError:
                    return code
                except ConnectionError:
                    piece = b""
                if not piece:
                    break
                answer.passed(piece)
                writer.write(piece)
                await writer.drain()
                patience, code = self._idle, "H15"
        finally:
            dyno.close()
        if not answer.head:
            return "H13"
        return None if answer.complete() else "H18"

    def _log(self, line: bytes, code: str | None, answer: _Answer) -> None:
        method, path, _ = line.decode().split(" ")
        said = {"method": method, "path": path, "status": answer.status, "code": code}
        if code:
            said["desc"] = _DESCRIPTIONS[code]
        print(json.dumps(said), flush=True)


async def _main(first_byte: float, idle: float) -> None:
    routing = _Routing(first_byte, idle)
    server = await asyncio.start_server(routing.serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    lines = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async for line in lines:
        await routing.choose(int(line))


@dataclass
class Router:
    """A running router.

    Args:
        process: its process.
        port: where it listens.
        said: the lines of its log.
    """

    process: subprocess.Popen[str]
    port: int
    said: list[dict[str, Any]] = field(default_factory=list)

    def choose(self, port: int) -> None:
        """Send requests to the dyno on this port; 0 makes them wait."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{port}\n")
        self.process.stdin.flush()
        self.wait_for(f"dyno {port}")

    def wait_for(self, path: str) -> dict[str, Any]:
        """The line about the first request for this path that has ended."""

        def found() -> dict[str, Any] | None:
            return next((each for each in self.said if each["path"] == path), None)

        line = until(found, f"{path} in the router's log")
        assert line is not None
        return line

    def codes(self) -> list[str]:
        """What went wrong."""
        return [str(each["code"]) for each in self.said if each["code"]]


@contextlib.contextmanager
def router(first_byte: float, idle: float) -> Iterator[Router]:
    """A router, until the end of the block."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.live.kit.router", str(first_byte), str(idle)],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        started = Router(process, int(process.stdout.readline()))
        printed = process.stdout

        def read() -> None:
            for line in printed:
                started.said.append(json.loads(line))

        reading = threading.Thread(target=read)
        reading.start()
        try:
            yield started
        finally:
            process.kill()
            reading.join(10)


if __name__ == "__main__":
    asyncio.run(_main(float(sys.argv[1]), float(sys.argv[2])))
