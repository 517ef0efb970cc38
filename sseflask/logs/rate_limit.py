"""How many warnings of one kind a log takes: whatever strangers can cause, they can repeat."""

from __future__ import annotations

import logging
import threading
import time

__all__ = ["Floods"]

#: Records of one kind that are let through in so many seconds.
_MOST, _SECONDS = 100, 60.0
#: Kinds that are told apart; beyond it those that were first are forgotten.
_KINDS = 256
#: gunicorn logs everything from the same few lines; its messages begin differently.
_BEGINNING = 20


class Floods:
    """Counts the records of each kind: of one place in the code, beginning alike. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kinds: dict[tuple[str, int, str], _Kind] = {}

    def count(self, record: logging.LogRecord) -> int | None:
        """Count a record, of which only the message may be from a stranger. Never blocks.

        Returns:
            how many of its kind were left out before it, or ``None`` if it is to be left out too.
        """
        kind = (record.pathname, record.lineno, str(record.msg)[:_BEGINNING])
        with self._lock:
            known = self._kinds.get(kind)
            if known is None:
                if len(self._kinds) >= _KINDS:
                    del self._kinds[next(iter(self._kinds))]
                known = self._kinds[kind] = _Kind()
            return known.count(time.monotonic())


class _Kind:
    """The records of one kind since the beginning of their minute."""

    __slots__ = ("_began", "_left_out", "_seen")

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._seen = self._left_out = 0

    def count(self, now: float) -> int | None:
        if now >= self._began + _SECONDS:
            self._began, self._seen = now, 0
        self._seen += 1
        if self._seen > _MOST:
            self._left_out += 1
            return None
        left_out, self._left_out = self._left_out, 0
        return left_out
