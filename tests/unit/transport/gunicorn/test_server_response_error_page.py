"""gunicorn's error pages, with headers of ours."""

from __future__ import annotations

import os
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.http.errors import InvalidRequestLine
from gunicorn.util import write_error
from gunicorn.workers.ggevent import GeventWorker

from sseflask.transport.gunicorn.server_response import ErrorPageSocket


class Client:
    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def sendall(self, data: bytes) -> None:
        self.sent.append(data)

    def getpeername(self) -> tuple[str, int]:
        return "192.0.2.7", 1234

    def gettimeout(self) -> None:
        return None

    def setblocking(self, blocking: bool) -> None:
        assert blocking in (True, False)

    settimeout = setblocking


def by_gunicorn(client: Client) -> None:
    application: Any = None
    worker = GeventWorker(1, os.getpid(), [], application, 30, Config(), Logger(Config()))
    page: Any = ErrorPageSocket(client, "17")
    try:
        worker.handle_error(None, page, ("192.0.2.7", 1234), InvalidRequestLine("x"))
    finally:
        worker.tmp.close()


def by_us(client: Client) -> None:
    page: Any = ErrorPageSocket(client, "17")
    write_error(page, 400, "Bad Request", "<no>")


@pytest.mark.parametrize("send", [by_gunicorn, by_us])
def test_a_page_says_which_request_has_failed(send: Any) -> None:
    client = Client()
    send(client)
    (page,) = client.sent
    head, _, body = page.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 400 Bad Request"
    assert {b"X-Request-Id: 17", b"Cache-Control: no-store", b"Connection: close"} <= {*lines}
    assert b"Content-Length: %d" % len(body) in lines
    assert b"<no>" not in body
