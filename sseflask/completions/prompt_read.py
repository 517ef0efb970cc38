"""Reads of an upstream's stream under gevent: one wait and one system call for each."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import httpcore2
import httpx2

from sseflask.transport.handoff import cooperative

__all__ = ["prompt_reads"]

_READ = 1  # libev's EV_READ


@contextlib.contextmanager
def prompt_reads(response: httpx2.Response) -> Iterator[None]:
    """While it is entered, each read of a response waits for its socket first.

    A token comes long after the one before, so the read that gevent's socket tries at once is
    nearly always in vain. The client's own reads also set a timeout, which is the business of
    `sseflask.completions.silence.SilenceLimit` here, and make a table of exceptions each time. And
    who waits lets others run, also beside an upstream that never pauses.

    Nothing changes without gevent, nor with TLS, whose data may be there though the socket has
    none.

    Args:
        response: with its headers; its connection is as it was afterwards, for the next request.
    """
    stream: Any = response.extensions.get("network_stream")
    if stream is None or not cooperative():
        yield
        return
    import gevent
    from gevent.socket import socket, wait

    plain = stream.get_extra_info("socket")
    if type(plain) is not socket or not hasattr(stream, "__dict__"):
        yield
        return
    readable = gevent.get_hub().loop.io(plain.fileno(), _READ)
    receive = plain.recv

    def read(max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG001  # see above
        wait(readable)
        try:
            data: bytes = receive(max_bytes)
        except OSError as error:
            raise httpcore2.ReadError(str(error)) from error
        return data

    # Of this object only, and with the promise of its class (httpcore2.NetworkStream.read).
    vars(stream)["read"] = read
    try:
        yield
    finally:
        del stream.read
        readable.close()
