"""Printed text as lines of the log."""

from __future__ import annotations

import atexit
import codecs
import io
import os
from collections.abc import Callable
from typing import Any, TextIO

from sseflask.logs.printable import shorten


class Printed(io.TextIOWrapper):
    """Replaces ``sys.stdout`` or ``sys.stderr``; programs can use it like the original.

    Args:
        made: makes a line of the log from a printed one.
        longest: the most characters of a line; a longer one is shortened, or cut if it has no end.
    """

    def __init__(self, stream: TextIO, made: Callable[[str], str], longest: int) -> None:
        self.stream = stream
        lines = _Lines(stream, made, longest)
        super().__init__(lines, "utf-8", "backslashreplace", newline="\n", write_through=True)

    def reconfigure(self, **options: Any) -> None:
        """As the original's, but an encoding changes nothing: lines are ASCII."""
        for name in ("encoding", "errors", "newline"):
            options.pop(name, None)
        if options and isinstance(self.stream, io.TextIOWrapper):
            self.stream.reconfigure(**options)


class _Lines(io.BufferedIOBase):
    """Takes UTF-8, and writes a line of the log for each line; other bytes are escaped."""

    def __init__(self, stream: TextIO, made: Callable[[str], str], longest: int) -> None:
        self._stream = stream
        self._made = made
        self._longest = longest
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._rest = ""
        self._process = 0
        atexit.register(self._finish)

    @property
    def name(self) -> str:
        return self._stream.name

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    def flush(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        """Nothing: the stream stays open for others."""

    def write(self, data: Any) -> int:
        *lines, self._rest = f"{self._rest}{self._decoder.decode(data)}".split("\n")
        if len(self._rest) > self._longest:  # perhaps this line never ends
            lines.append(self._rest)
            self._rest = ""
        self._process = os.getpid()
        for line in lines:
            if line.strip():
                self._stream.write(self._made(shorten(line, self._longest)) + "\n")
        return len(data)

    def _finish(self) -> None:
        """Write the last line, which needs no end; in a child process it is the parent's."""
        if self._rest and self._process == os.getpid():
            self.write(b"\n")
            self.flush()
