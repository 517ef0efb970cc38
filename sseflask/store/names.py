"""Names of channels, patterns of them, and which of many patterns match a name. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Generic, NamedTuple, TypeVar

from sseflask.errors import ChannelError

Item = TypeVar("Item")

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


class Pattern(NamedTuple):
    """One or many channels, by the dotted segments of their names.

    ``*`` matches exactly one segment. ``**`` matches one or more, and can only be the last. Any
    other segment matches itself, so that a plain name is the pattern of just that channel.
    ``orders.*`` matches ``orders.eu`` but neither ``orders`` nor ``orders.eu.7``.
    """

    segments: tuple[str, ...]

    @staticmethod
    def parse(text: str) -> Pattern:
        """Read a name or pattern, or raise `ChannelError` with what is allowed."""
        return _parsed(text) if isinstance(text, str) else _parse(text)

    def __str__(self) -> str:
        return ".".join(self.segments)

    @property
    def is_name(self) -> bool:
        return "*" not in self.segments and self.segments[-1] != "**"

    @property
    def is_everything(self) -> bool:
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


def distinct(patterns: Sequence[Pattern]) -> tuple[Pattern, ...]:
    """Each of some patterns once, in an order that does not depend on theirs."""
    return tuple(patterns if len(patterns) == 1 else sorted(set(patterns)))


def _parse(text: object) -> Pattern:
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
    return Pattern(segments)


#: Most subscribers ask for few channels. What is no pattern raises, and is not remembered.
_parsed = lru_cache(1024)(_parse)


class _Node(Generic[Item]):
    """What follows a number of segments."""

    __slots__ = ("after", "here", "rest")

    def __init__(self) -> None:
        self.after: dict[str, _Node[Item]] = {}
        self.here: dict[Item, None] = {}
        self.rest: dict[Item, None] = {}

    @property
    def empty(self) -> bool:
        return not (self.after or self.here or self.rest)


class PatternIndex(Generic[Item]):
    """Items by patterns, in a tree of their segments. Not thread-safe.

    The time of a look-up depends on the patterns that match the name's beginning only.
    """

    def __init__(self) -> None:
        self._root: _Node[Item] = _Node()

    def __bool__(self) -> bool:
        return not self._root.empty

    def add(self, pattern: Pattern, item: Item) -> None:
        """Add an item: `find` gives it for the names that a pattern matches."""
        *path, last = pattern.segments
        node = self._root
        for segment in path:
            node = node.after.setdefault(segment, _Node())
        if last == "**":
            node.rest[item] = None
        else:
            node.after.setdefault(last, _Node()).here[item] = None

    def remove(self, pattern: Pattern, item: Item) -> None:
        """Undo `add`; harmless if there is nothing to undo."""
        *path, last = pattern.segments
        segments = path if last == "**" else [*path, last]
        nodes = [self._root]
        for segment in segments:
            following = nodes[-1].after.get(segment)
            if following is None:
                return
            nodes.append(following)
        items = nodes[-1].rest if last == "**" else nodes[-1].here
        items.pop(item, None)
        # Nodes that lead nowhere any more.
        while len(nodes) > 1 and nodes[-1].empty:
            nodes.pop()
            del nodes[-1].after[segments[len(nodes) - 1]]

    def find(self, name: str) -> Iterator[Item]:
        """The items of all patterns that match a name; one may come more than once."""
        nodes = [self._root]
        for segment in name.split("."):
            following = []
            for node in nodes:
                yield from node.rest
                for key in (segment, "*"):
                    if key in node.after:
                        following.append(node.after[key])
            nodes = following
        for node in nodes:
            yield from node.here


class PatternSet:
    """Some names and patterns; a name is in it if one of them matches. Not thread-safe."""

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        self.names: set[str] = set()
        self.wild: list[Pattern] = []  # those that are no names
        self.everything = False
        self._index: PatternIndex[Pattern] = PatternIndex()
        for pattern in patterns:
            if pattern.is_name:
                self.names.add(pattern.prefix)
            else:
                self.wild.append(pattern)
                self.everything |= pattern.is_everything
                self._index.add(pattern, pattern)

    def __contains__(self, name: str) -> bool:
        return self.everything or name in self.names or next(self.patterns(name), None) is not None

    def patterns(self, name: str) -> Iterator[Pattern]:
        """Those with wildcards that match a name; one may come more than once."""
        return self._index.find(name)
