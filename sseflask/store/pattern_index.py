"""Finds the patterns that match a name, however many there are. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from sseflask.store.names import Pattern

Item = TypeVar("Item")


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
        """Have an item found by the names that a pattern matches."""
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
        nodes = [self._root]
        for segment in path if last == "**" else (*path, last):
            following = nodes[-1].after.get(segment)
            if following is None:
                return
            nodes.append(following)
        items = nodes[-1].rest if last == "**" else nodes[-1].here
        items.pop(item, None)
        # Nodes that lead nowhere any more.
        segments = path if last == "**" else [*path, last]
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
    """Some names and patterns; a name is in it if one of them matches. Not thread-safe.

    Attributes:
        names: those that are names.
        wild: the others.
        everything: whether one of them matches every channel.
    """

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        self.names: set[str] = set()
        self.wild: list[Pattern] = []
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
