"""What an answer took: as its upstream says, or else what was seen of it. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sseflask.completions.dialects import RESPONSES
from sseflask.completions.failures import masked
from sseflask.completions.frames import message
from sseflask.completions.parts import ToolCall, pieces

__all__ = ["usage_of"]


def usage_of(
    frames: Iterable[bytes], dialect: str, outcome_frame: bytes | None = None
) -> dict[str, Any]:
    """The tokens that an answer took.

    Takes some microseconds for each frame where the upstream never said.

    Args:
        frames: all that was relayed of it.
        dialect: the name of the API that they are of.
        outcome_frame: the upstream's own last frame, where it has one.

    Returns:
        the last usage that the upstream sent, in its own words; else the number of pieces of
        text, reasoning and arguments as ``completion_tokens``, marked as ``partial``.
    """
    relayed = list(frames)
    telling = relayed if dialect != RESPONSES else [outcome_frame or b""]
    for frame in reversed(telling):
        # From the last one, as OpenAI has "usage": null in all the others.
        if b'"usage"' in frame and (told := _told(dialect, frame)) is not None:
            return told
    return {"completion_tokens": _seen(dialect, relayed), "partial": True}


def _told(dialect: str, frame: bytes) -> dict[str, Any] | None:
    _, value = message(frame)
    if dialect == RESPONSES and isinstance(value, dict):
        value = value.get("response")
    told = value.get("usage") if isinstance(value, dict) else None
    if not isinstance(told, dict) or not told:
        return None
    cleaned: dict[str, Any] = masked(told, ())  # without the infinities that JSON can't spell
    return cleaned


def _seen(dialect: str, frames: Iterable[bytes]) -> int:
    return sum(
        not isinstance(part, ToolCall) or bool(part.arguments)
        for frame in frames
        for _, part in pieces(dialect, frame)
    )
