"""An event stream, taken apart strictly: nothing may be in it that is not of the format."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Sent:
    """One block of a stream as it was on the wire: LF line ends, one space after the colon."""

    data: str | None = None
    event: str | None = None
    id: str | None = None
    retry: str | None = None


class EventParser:
    """Takes the body of one response apart, as it comes.

    Args:
        retries: where the values of `retry` lines are added as they pass.
    """

    def __init__(self, retries: list[str]) -> None:
        self._retries = retries
        self._line = b""
        self._fields: dict[str, str] = {}

    def feed(self, body: bytes) -> Iterator[Sent | str]:
        """The events and the comments that are complete now."""
        *lines, self._line = (self._line + body).split(b"\n")
        for line in lines:
            if line.startswith(b":"):
                yield line[1:].decode().removeprefix(" ")
            elif line:
                self._field(line.decode())
            else:
                # Some clients dispatch an empty event at a blank line that ends none.
                assert self._fields, "a blank line that ends no event"
                event = Sent(**self._fields)
                self._fields = {}
                yield event

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        assert name in ("data", "event", "id", "retry"), f"unknown field in {line!r}"
        if name == "retry":
            self._retries.append(value)
        elif name == "data" and name in self._fields:
            value = f"{self._fields[name]}\n{value}"
        self._fields[name] = value

    def unfinished(self) -> str:
        """What a stream that ends now is cut in; a `retry` line alone may be the last."""
        if self._line or set(self._fields) - {"retry"}:
            return f"the stream ends within {self._fields} {self._line!r}"
        return ""
