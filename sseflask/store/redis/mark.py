"""The mark of a server that is being moved to: no process uses it before all is there.

What a move has left that was broken off, the next one deletes.
"""

from __future__ import annotations

from sseflask.store.api import StoreError

#: The name of the key that is there meanwhile.
MARK = "moving"


def unfinished(name: str) -> StoreError:
    """The error of all who would use a server that is marked."""
    error = StoreError(
        f"the Redis server at {name} is not complete: sseflask migrate is at work, or was broken "
        "off (then run it again)"
    )
    error.reason = "events and completions are being moved there"
    return error
