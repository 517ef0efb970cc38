"""What a program prints, made into lines of a log."""

from __future__ import annotations

import atexit
import codecs
import io
import os
from collections.abc import Callable
from typing import Any, TextIO

from sseflask.logs.printable import shorten

__all__ = ["Printed"]

#: What changes when something is written, not what.
_WHEN = ("line_buffering", "write_through")


class Printed(io.TextIOBase):
    """Stands for ``sys.stdout`` or ``sys.stderr``, for programs that treat it as the usual one too.

    Args:
        stream: where the lines are written.
        made: makes a line of the log of one that was printed.
        longest: characters of a line at most; what is longer is shortened, or cut if it has no end.
    """

    def __init__(self, stream: TextIO, made: Callable[[str], str], longest: int) -> None:
        self.stream = stream
        self._made = made
        self._longest = longest
        self._rest = ""
        self._process = 0
        atexit.register(self._finish)

    @property
    def encoding(self) -> str:  # type: ignore[override]  # an attribute there
        return self.stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]  # an attribute there
        return self.stream.errors

    @property
    def name(self) -> str:
        return self.stream.name

    @property
    def buffer(self) -> io.BufferedIOBase:
        """For bytes, and for a ``TextIOWrapper`` of somebody's own."""
        return _Bytes(self)

    def detach(self) -> io.BufferedIOBase:  # type: ignore[override]  # a BinaryIO there
        return self.buffer

    def reconfigure(self, **options: Any) -> None:
        """As of ``io.TextIOWrapper``, but that encodings change nothing: lines are ASCII."""
        when = {name: options[name] for name in _WHEN if name in options}
        if when and isinstance(self.stream, io.TextIOWrapper):
            self.stream.reconfigure(**when)

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self.stream.isatty()

    def fileno(self) -> int:
        return self.stream.fileno()

    def flush(self) -> None:
        self.stream.flush()

    def write(self, text: str) -> int:
        if not isinstance(text, str):  # click tries that to see what kind of stream this is
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        *lines, self._rest = f"{self._rest}{text}".split("\n")
        if len(self._rest) > self._longest:  # may be that no line will ever end
            lines.append(self._rest)
            self._rest = ""
        self._process = os.getpid()
        for line in lines:
            if line.strip():
                self.stream.write(self._made(shorten(line, self._longest)) + "\n")
        return len(text)

    def _finish(self) -> None:
        """The last line needs no end. That of a parent process is not this one's."""
        if self._rest and self._process == os.getpid():
            self.write("\n")
            self.flush()


class _Bytes(io.BufferedIOBase):
    """Takes UTF-8; other bytes are escaped."""

    def __init__(self, printed: Printed) -> None:
        self._printed = printed
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._printed.fileno()

    def flush(self) -> None:
        self._printed.flush()

    def write(self, data: Any) -> int:
        data = bytes(data)
        self._printed.write(self._decoder.decode(data))
        return len(data)

    def close(self) -> None:
        """Nothing: others print there as well."""
