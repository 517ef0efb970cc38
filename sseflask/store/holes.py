"""Numbers that are never given to events, as some of them may have been given and lost.

They are written as ``before:behind``, one after the other: the numbers between these two.
"""

from __future__ import annotations


def in_hole(number: int, holes: str) -> bool:
    """Whether a number was lost: who has seen its event may have missed others."""
    for hole in holes.split():
        before, _, behind = hole.partition(":")
        if before.isdigit() and behind.isdigit() and int(before) < number < int(behind):
            return True
    return False
