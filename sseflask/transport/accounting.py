"""The account of a stream: counted when it opens and when it ends, and told to a log if wanted.

Nothing is logged, and nothing kept for it, unless the logger ``sseflask.streams`` is at level INFO.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING, Any

from sseflask.counters.counts import COUNTS, LOCK, Kind, Reason
from sseflask.logs import request_ids
from sseflask.logs.masking import safe_for_log
from sseflask.logs.printable import from_wsgi

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["Account", "LogFields", "ended", "opened"]

#: Off, whatever the level of the loggers above: two lines for each stream are for those who ask.
log = logging.getLogger("sseflask.streams")
if log.level == logging.NOTSET:
    log.setLevel(logging.WARNING)

#: What a log record has of the request, beside its id.
_PEER, _METHOD, _PATH = "REMOTE_ADDR", "REQUEST_METHOD", "PATH_INFO"

#: How handlers of the log have failed: each is said once.
_failed: set[type[Exception]] = set()

LogFields = dict[str, Any]
"""What the two log records of a stream have in common."""


def opened(kind: Kind, environ: WSGIEnvironment) -> LogFields | None:
    """Count a stream whose response begins, and log it.

    Args:
        kind: where its events come from.
        environ: the request's.

    Returns:
        what `ended` takes; ``None`` if nothing is logged.
    """
    with LOCK:
        COUNTS.streams[kind].opened += 1
    if not log.isEnabledFor(logging.INFO):
        return None
    told: LogFields = {
        "request_id": environ.get(request_ids.KEY),
        "kind": kind,
        "method": environ.get(_METHOD),
        "path": safe_for_log(from_wsgi(environ.get(_PATH, ""))),
        "peer": environ.get(_PEER),
    }
    _tell("stream opened", told)
    return told


def ended(
    kind: Kind, reason: Reason, told: LogFields | None, seconds: float, events: int, sent: int
) -> None:
    """Count the end of a stream, and log it.

    Args:
        kind: as when it was opened.
        reason: why it ended.
        told: what `opened` gave.
        seconds: how long the request took.
        events: how many events were sent.
        sent: bytes of the body that were sent.
    """
    with LOCK:
        COUNTS.streams[kind].ended[reason] += 1
    if told is not None:
        more = {"seconds": round(seconds, 3), "events": events, "bytes": sent, "reason": reason}
        _tell("stream ended", {**told, **more})


def _tell(message: str, fields: LogFields) -> None:
    try:
        log.info(message, extra=fields)
    except Exception as error:
        # Of a handler or filter of somebody's own: no reason to lose the stream's events. It may be
        # the one that would be told of it.
        if type(error) not in _failed:
            _failed.add(type(error))
            print(f"a handler of {log.name} failed: {error!r}", file=sys.stderr)


class Account:
    """The account of a stream that a server's own thread sends, piece by piece. Thread-safe.

    Args:
        kind: where its events come from.
        told: what `opened` gave.
    """

    def __init__(self, kind: Kind, told: LogFields | None) -> None:
        self._kind: Kind = kind
        self._told = told
        self._began = time.monotonic()
        self._events = self._bytes = 0
        self._open = True

    def add(self, events: int, size: int) -> None:
        """Count events, and bytes of the body, that are given to the server."""
        self._events += events
        self._bytes += size
        counts = COUNTS.streams[self._kind]
        with LOCK:
            counts.events += events
            counts.bytes += size

    def end(self, reason: Reason) -> None:
        """Count the end, and log it; harmless to repeat."""
        with LOCK:
            first, self._open = self._open, False
        if first:
            seconds = time.monotonic() - self._began
            ended(self._kind, reason, self._told, seconds, self._events, self._bytes)
