"""Reads a log as its thread does, but at once."""

from __future__ import annotations

from collections.abc import Sequence

from sseflask.store.api import Entry, History, HistoryQuery, Log, Missing, MissingScope
from sseflask.store.names import Pattern


def history(
    log: Log, asked: Sequence[Pattern], after: int, limit: int, ends: MissingScope
) -> History:
    """What the log's thread does, without anything else between the steps."""
    steps = log.history(HistoryQuery(tuple(asked), after, limit, ends))
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: History = end.value
            return result


def read(
    log: Log, asked: Sequence[Pattern], after: int, upto: int, limit: int, *, page: int = 10**6
) -> list[Entry]:
    """As many events as there are, in as many pages as it takes, of ``page`` events at most."""
    found = list[Entry]()
    while len(found) < limit:
        answer = history(log, asked, after, min(page, limit - len(found)), "none")
        entries, last = answer.upto(upto)
        assert all(after < entry.number <= last for entry in entries)
        found += entries
        if last >= min(upto, answer.newest):
            return found
        assert last > after, "no progress"
        after = last
    return found


def missing(log: Log, asked: Sequence[Pattern], after: int) -> list[Missing]:
    return history(log, asked, max(0, after), 1, "all" if after < 0 else "trimmed").missing
