"""Names of channels, and patterns of them. No I/O."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sseflask.errors import ChannelError

#: The channel of the service's own figures.
FIGURES = "sseflask.live"

#: The names of the service's own channels begin with this.
_OWN = "sseflask."

_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_ALLOWED = "1 to 128 of the characters A-Z a-z 0-9 _ . : -"


def check_name(text: str) -> str:
    """Return the name of a channel if it is one, or raise `ChannelError` with what is allowed."""
    if not isinstance(text, str) or not _NAME.fullmatch(text):
        raise ChannelError(f"{text!r:.200} is no channel name: a name is {_ALLOWED}")
    return text


def is_own(name: str) -> bool:
    """Whether only the service itself publishes to a channel."""
    return name.startswith(_OWN)


@dataclass(frozen=True, slots=True)
class Pattern:
    """One or many channels, by the dotted segments of their names.

    ``*`` matches exactly one segment. ``**`` matches one or more, and can only be the last. Any
    other segment matches itself, so that a plain name is the pattern of just that channel.
    ``orders.*`` matches ``orders.eu`` but neither ``orders`` nor ``orders.eu.7``.
    """

    segments: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Read a name or pattern, or raise `ChannelError` with what is allowed."""
        if not isinstance(text, str) or not _NAME.fullmatch(text.replace("*", "_")):
            raise ChannelError(
                f"{text!r:.200} is neither a channel name nor a pattern: a name is {_ALLOWED}; in "
                "a pattern a segment between dots may be * (any one) or, at the end, ** (the rest)"
            )
        segments = tuple(text.split("."))
        if any("*" in segment and segment not in ("*", "**") for segment in segments):
            raise ChannelError(f"{text!r} is no pattern: * stands for whole segments, as in 'a.*'")
        if "**" in segments[:-1]:
            raise ChannelError(f"{text!r} is no pattern: ** can only be the last segment")
        return cls(segments)

    def __str__(self) -> str:
        return ".".join(self.segments)

    @property
    def is_name(self) -> bool:
        """Whether this is just one channel."""
        return "*" not in self.segments and self.segments[-1] != "**"

    @property
    def is_everything(self) -> bool:
        """Whether it matches every channel."""
        return self.segments == ("**",)

    @property
    def prefix(self) -> str:
        """What all its channels begin with: the segments before the first wildcard, dotted."""
        plain: list[str] = []
        for segment in self.segments:
            if segment in ("*", "**"):
                return "".join(f"{segment}." for segment in plain)
            plain.append(segment)
        return ".".join(plain)

    @property
    def expression(self) -> re.Pattern[str]:
        """The same as a regular expression, for full matches: faster than `matches` for many."""
        *path, last = self.segments
        parts = ["[^.]*" if segment == "*" else re.escape(segment) for segment in path]
        end = {"*": "[^.]*", "**": ".*"}.get(last) or re.escape(last)
        return re.compile(r"\.".join([*parts, end]))

    def matches(self, name: str) -> bool:
        """Whether it matches a channel."""
        return self._covers(name.split("."))

    def covers(self, other: Pattern) -> bool:
        """Whether it matches every channel that the other pattern matches."""
        return self._covers(other.segments)

    def _covers(self, theirs: Sequence[str]) -> bool:
        own = self.segments
        if own[-1] == "**":
            if len(theirs) < len(own):
                return False
            # What is left of theirs has no **, which could only be their last segment.
            own, theirs = own[:-1], theirs[: len(own) - 1]
        elif len(own) != len(theirs) or theirs[-1] == "**":
            return False
        return all(mine == its or mine == "*" for mine, its in zip(own, theirs, strict=True))
