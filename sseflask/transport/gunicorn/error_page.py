"""gunicorn's own error pages, with the headers that all our responses have.

gunicorn writes them to the socket past the application, in one `sendall`
(`gunicorn.util.write_error`, also called by its `Worker.handle_error`). If it wrote them otherwise,
the headers would be missing: `tests/unit/transport/gunicorn/test_error_page.py`.
"""

from __future__ import annotations

from typing import Any

from sseflask.logs.request_ids import HEADER

__all__ = ["ErrorPageSocket"]


class ErrorPageSocket:
    """A client's socket for one error page, to which it adds headers.

    Args:
        client: the socket.
        id: of the request that has failed.
    """

    def __init__(self, client: Any, id: str) -> None:
        self._client = client
        self._id = id

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def sendall(self, page: bytes) -> None:
        """Send the whole page."""
        line, end, rest = page.partition(b"\r\n")
        added = f"{HEADER}: {self._id}\r\nCache-Control: no-store\r\n"
        self._client.sendall(line + end + added.encode() + rest)
