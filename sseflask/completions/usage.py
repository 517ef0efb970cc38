"""What an answer took: as its upstream says, or else what was seen of it. No I/O."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sseflask.completions.dialects import RESPONSES
from sseflask.completions.failures import masked
from sseflask.completions.frame_splitter import message

__all__ = ["FRAME_BYTES", "Tally", "size_of", "usage_of"]

#: What the log takes for a frame beside its bytes, about.
FRAME_BYTES = 48

_GAP = rb"(?:\s|data:)*"
#: A usage that is no null: OpenAI has that in all chunks but the last.
_TELLS = re.compile(rb'"usage"%b:%b\{%b"' % (_GAP, _GAP, _GAP))
_SAYS = re.compile(
    rb'"(?:content|text|delta|reasoning_content|reasoning|thinking|refusal|arguments)"\s*:\s*"[^"]'
    rb'|"arguments"\s*:\s*\{'
)


@dataclass(slots=True)
class Tally:
    """What has passed of an answer so far. Takes well below a microsecond for each frame.

    Args:
        last: the number of the last frame.
        size: the bytes of the frames, with `FRAME_BYTES` for each.
        said: how many of them said something: a piece of text, of reasoning, or of arguments.
        told: the number of the last one that tells a usage, 0 where none did.
        telling: that frame.
    """

    last: int = 0
    size: int = 0
    said: int = 0
    told: int = 0
    telling: bytes | None = None

    def take(self, frame: bytes) -> None:
        """Take in the next frame. It is searched, not parsed."""
        self.last += 1
        self.size += len(frame) + FRAME_BYTES
        # In the spelling of nearly all chunks first: a search by a regular expression takes longer.
        at = frame.rfind(b'"usage"')
        if at >= 0 and frame[at + 7 : at + 12] != b":null" and _TELLS.search(frame):
            self.told, self.telling = self.last, frame
        if frame.startswith(b"event: response."):
            self.said += b'.delta"' in frame
            return
        at = frame.find(b'"content":"')
        if (at >= 0 and frame[at + 11 : at + 12] != b'"') or _SAYS.search(frame):
            self.said += 1


def size_of(frames: Sequence[bytes]) -> int:
    """What the log takes for some frames, in bytes, about."""
    return sum(map(len, frames)) + len(frames) * FRAME_BYTES


def usage_of(
    tally: Tally, dialect: str, outcome_frame: bytes | None = None
) -> dict[str, Any] | None:
    """The tokens that an answer took. Parses one frame, where one tells it.

    Args:
        tally: of all that was relayed of it.
        dialect: the name of the API that it is of.
        outcome_frame: the upstream's own last frame, where it has one.

    Returns:
        the last usage that the upstream sent, in its own words; else the number of frames that
        said something as ``completion_tokens``, marked as ``partial``; ``None`` where nothing came.
    """
    if not tally.last and outcome_frame is None:
        return None
    telling = outcome_frame if dialect == RESPONSES else tally.telling
    told = None if telling is None else _told(dialect, telling)
    return {"completion_tokens": tally.said, "partial": True} if told is None else told


def _told(dialect: str, frame: bytes) -> dict[str, Any] | None:
    _, value = message(frame)
    if dialect == RESPONSES and isinstance(value, dict):
        value = value.get("response")
    told = value.get("usage") if isinstance(value, dict) else None
    if not isinstance(told, dict) or not told:
        return None
    cleaned: dict[str, Any] = masked(told, ())  # without the infinities that JSON can't spell
    return cleaned
