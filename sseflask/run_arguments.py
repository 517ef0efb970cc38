"""What the methods of `sseflask.run_api` are given, checked, as a run begins with it."""

from __future__ import annotations

import contextlib
import math
from typing import Literal, TypeAlias

from sseflask.runs.writer import Bounds, Terms

__all__ = ["OnDisconnect", "Owner", "check_number", "subject_of", "terms_of"]

OnDisconnect: TypeAlias = "Literal['cancel', 'continue'] | float"
"""What becomes of a run without viewers: cancelled at once, never, or after some seconds."""

Owner: TypeAlias = "str | int | None"
"""Whose a run is; ``None`` for everybody's who knows its id."""


def subject_of(owner: Owner) -> str:
    """The owner as a store has it; ValueError if it is none."""
    if owner is None:
        return ""
    if isinstance(owner, bool) or not isinstance(owner, (str, int)) or owner == "":
        raise ValueError(
            "owner must be a text or a whole number, such as a user's id, or None, not "
            f"{owner!r:.80}"
        )
    subject = str(owner)
    try:
        subject.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"owner must be Unicode text, not {owner!r:.80}: {error}") from None
    return subject


def terms_of(
    bounds: Bounds,
    on_disconnect: OnDisconnect,
    max_bytes: float | None,
    max_seconds: float | None,
) -> Terms:
    """How long a run goes on; ValueError for a value that is not allowed.

    Args:
        bounds: of all runs, for what is ``None``.
    """
    check_number("max_bytes", max_bytes)
    check_number("max_seconds", max_seconds)
    return Terms(
        _seconds_alone(on_disconnect),
        bounds.max_run_bytes if max_bytes is None else min(max_bytes, bounds.store_bytes),
        bounds.run_seconds if max_seconds is None else max_seconds,
    )


def _seconds_alone(on_disconnect: OnDisconnect) -> float:
    if on_disconnect == "continue":
        return math.inf
    if on_disconnect == "cancel":
        return 0.0
    if (
        isinstance(on_disconnect, (int, float))
        and not isinstance(on_disconnect, bool)
        and on_disconnect >= 0
    ):
        return on_disconnect
    raise ValueError(
        f"on_disconnect must be 'cancel', 'continue' or seconds from 0, not {on_disconnect!r:.80}"
    )


def check_number(name: str, value: object) -> None:
    """Refuse what is neither ``None`` nor a number from 0, with ValueError."""
    if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        with contextlib.suppress(OverflowError):  # a whole number that no float can have
            if value is None or float(value) >= 0:
                return
    raise ValueError(f"{name} must be a number from 0, or None, not {value!r:.80}")
