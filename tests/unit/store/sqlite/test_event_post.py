"""What one process sends is what the others get, and nothing else is taken for it."""

from __future__ import annotations

import pytest

from sseflask.store.api import Entry
from sseflask.store.sqlite.event_post import Post, decode, encode
from sseflask.store.sqlite.wakeup import LOOK


def test_events_come_over_unchanged() -> None:
    entries = [
        Entry(2**62, "prices", b"data: 1\n\n"),
        Entry(2**62 + 1, '\u20ac \u2028 \\ "', b""),
        Entry(2**62 + 2, "prices", bytes(range(256))),
    ]
    assert decode(encode("epoch", 7, entries)) == Post("epoch", 7, entries)


@pytest.mark.parametrize("message", [LOOK, b"", b"{}\n", b"7\n", b"[2, 1]\n", b"\xff\n", b"[]\n"])
def test_other_messages_are_none(message: bytes) -> None:
    assert decode(message) is None
