"""Reads the table of frames; README.md beside it says what a vector means."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sseflask import Comment, Event, MessageEvent

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Vector:
    """A stream and what a client must make of it."""

    name: str
    stream: bytes
    messages: tuple[MessageEvent, ...]
    last_event_id: str
    retry: int | None
    chromium: str | None


@dataclass(frozen=True)
class Encoded:
    """Something to send and the exact bytes it becomes."""

    name: str
    item: Event | Comment
    stream: bytes


def _text(pieces: str | list[Any]) -> str:
    if isinstance(pieces, str):
        return pieces
    return "".join(
        piece if isinstance(piece, str) else piece[0] * int(piece[1]) for piece in pieces
    )


def _messages(entries: list[dict[str, Any]]) -> tuple[MessageEvent, ...]:
    messages: list[MessageEvent] = []
    for entry in entries:
        message = MessageEvent(
            _text(entry["data"]), entry.get("event", "message"), entry.get("last_event_id", "")
        )
        messages += [message] * int(entry.get("times", 1))
    return tuple(messages)


def frames() -> list[Vector]:
    """Every vector for readers of streams."""
    entries = json.loads((_HERE / "frames.json").read_text(encoding="ascii"))
    return [
        Vector(
            entry["name"],
            _text(entry["bytes"]).encode("latin-1"),
            _messages(entry["messages"]),
            entry.get("last_event_id", ""),
            entry.get("retry"),
            entry.get("chromium"),
        )
        for entry in entries
    ]


def encoded() -> list[Encoded]:
    """Every vector for the encoder."""
    entries = json.loads((_HERE / "encoded.json").read_text(encoding="ascii"))
    return [
        Encoded(
            entry["name"],
            Event(**entry["event"]) if "event" in entry else Comment(entry["comment"]),
            _text(entry["bytes"]).encode("latin-1"),
        )
        for entry in entries
    ]
