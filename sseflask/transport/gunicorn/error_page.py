"""gunicorn's own error pages, which are written to the socket past the application."""

from __future__ import annotations

from typing import Any

from sseflask.logs.request_ids import HEADER

__all__ = ["ErrorPage"]


class ErrorPage:
    """A client's socket, for one page of gunicorn's: that also says which request has failed.

    Args:
        client: the socket.
        id: the request's.
    """

    def __init__(self, client: Any, id: str) -> None:
        self._client = client
        self._id = id

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def sendall(self, page: bytes) -> None:
        """Send the page, which gunicorn writes in one piece."""
        line, end, rest = page.partition(b"\r\n")
        added = f"{HEADER}: {self._id}\r\nCache-Control: no-store\r\n"
        self._client.sendall(line + end + added.encode() + rest)
