"""What a process sends the others when it has stored events: the events themselves.

So the others need not read the file, which has everything in any case. Versions of sseflask that
don't know this message look into the file, as they do at any other.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from sseflask.store.api import Entry

_VERSION = 1


class Post(NamedTuple):
    """Events with consecutive numbers, which are stored."""

    epoch: str
    last_notice: int  # the highest number of a notice when they were stored
    entries: list[Entry]


def encode(epoch: str, last_notice: int, entries: Sequence[Entry]) -> bytes:
    parts = [(entry.channel, len(entry.frame)) for entry in entries]
    head = json.dumps([_VERSION, epoch, last_notice, entries[0].number, parts])
    return b"\n".join([head.encode(), b"".join(entry.frame for entry in entries)])


def decode(message: bytes) -> Post | None:
    """The post in a message; ``None`` if it is none, or of another version."""
    head, _, frames = message.partition(b"\n")
    try:
        version, *rest = json.loads(head)
    except (ValueError, TypeError):
        return None
    if version != _VERSION:
        return None  # its other parts may be others too
    epoch, last_notice, number, parts = rest
    entries, at = list[Entry](), 0
    for channel, size in parts:
        entries.append(Entry(number, channel, frames[at : at + size]))
        number, at = number + 1, at + size
    return Post(epoch, last_notice, entries)
