"""How many warnings of one kind a log takes: strangers can repeat whatever they can cause."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass

#: The records of one kind that are written in so many seconds.
_MOST, _SECONDS = 100, 60.0
#: The number of kinds; beyond it the oldest is forgotten.
_KINDS = 256
#: gunicorn logs everything from the same few lines; its messages begin differently.
_BEGINNING = 20


@dataclass(slots=True)
class _Kind:
    """The records of one kind since their window began."""

    began: float
    seen: int = 0
    left_out: int = 0


class Floods:
    """Counts the records of each kind: from one place in the code, beginning alike. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kinds: dict[tuple[str, int, str], _Kind] = {}

    def count(self, record: logging.LogRecord) -> int | None:
        """Count a record. Never blocks.

        Returns:
            how many of its kind were left out before it, or ``None`` if it is to be left out too.
        """
        key = (record.pathname, record.lineno, str(record.msg)[:_BEGINNING])
        now = time.monotonic()
        with self._lock:
            if key not in self._kinds and len(self._kinds) >= _KINDS:
                del self._kinds[next(iter(self._kinds))]
            kind = self._kinds.setdefault(key, _Kind(now))
            if now >= kind.began + _SECONDS:
                kind.began, kind.seen = now, 0
            kind.seen += 1
            if kind.seen > _MOST:
                kind.left_out += 1
                return None
            left_out, kind.left_out = kind.left_out, 0
            return left_out
