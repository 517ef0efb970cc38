"""Requests one after the other on one connection, without waiting for the responses."""

from __future__ import annotations

import contextlib
import socket
import time
from types import TracebackType

from benchmarks.client import load
from benchmarks.client.http import BadResponse, ResponseReader

_READ_SIZE = 64 * 1024
_PATIENCE = 10.0


class NoAnswer(Exception):
    """The connection ended, or broke, where an answer should have come."""


class Asker:
    """Sends a request and, as often as it is looked at, tells whether its answer has come.

    A connection that the server has closed since the last answer, as servers do with those that
    nobody uses, is opened again. Only that blocks.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None
        self._unsent = b""
        self._response: ResponseReader | None = None
        self._asked_at = 0.0

    def __enter__(self) -> Asker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def waiting(self) -> bool:
        """Whether a request has been sent whose answer is not there yet."""
        return self._response is not None

    @property
    def local_port(self) -> int:
        """The port of this side of the open connection."""
        assert self._socket is not None
        port: int = self._socket.getsockname()[1]
        return port

    def ask(self, request: bytes) -> None:
        """Send a request; not while another one waits for its answer. NoAnswer where that fails."""
        assert not self.waiting
        try:
            if self._socket is None or self._left():
                self.close()
                self._socket = socket.create_connection(("127.0.0.1", self._port), _PATIENCE)
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._socket.setblocking(False)
            self._unsent = request
            self._send()
        except OSError as error:
            raise NoAnswer(f"on sending: {error}") from error
        self._response = ResponseReader()
        self._asked_at = time.monotonic()

    def answer(self) -> int | None:
        """Give the status of the answer once all of it has come, None before.

        NoAnswer where it can't come any more, or is no response, or took ten seconds.
        """
        assert self._socket is not None
        assert self._response is not None
        try:
            self._send()
            with contextlib.suppress(BlockingIOError):
                data = self._socket.recv(_READ_SIZE)
                self._response.feed(data)
                if not data and not self._response.ended:
                    raise NoAnswer("the connection ended")
        except (OSError, BadResponse) as error:
            raise NoAnswer(str(error)) from error
        if self._response.ended:
            status, self._response = self._response.status, None
            return status
        if time.monotonic() - self._asked_at > _PATIENCE:
            raise NoAnswer(f"none within {_PATIENCE:g} s")
        return None

    def ask_and_wait(self, request: bytes) -> int:
        """Send a request and block until its answer is there; give the status."""
        self.ask(request)
        while (status := self.answer()) is None:
            time.sleep(load.WAIT)
        return status

    def close(self) -> None:
        """Close the connection; what was asked has no answer then."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self._response = None

    def _send(self) -> None:
        if self._unsent:
            assert self._socket is not None
            with contextlib.suppress(BlockingIOError):
                self._unsent = self._unsent[self._socket.send(self._unsent) :]

    def _left(self) -> bool:
        assert self._socket is not None
        try:
            return not self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
