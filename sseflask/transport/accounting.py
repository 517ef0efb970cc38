"""Streams are counted, and logged if wanted, when they open and when they end.

Nothing is logged, and nothing kept for it, unless the logger ``sseflask.streams`` is at level INFO.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

from sseflask.counters.counts import COUNTS, LOCK, Kind, Reason
from sseflask.logs import request_ids
from sseflask.logs.masking import safe_for_log
from sseflask.logs.printable import from_wsgi

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

#: Off, whatever the level of the loggers above: two lines for each stream have to be asked for.
log = logging.getLogger("sseflask.streams")
if log.level == logging.NOTSET:
    log.setLevel(logging.WARNING)

#: How handlers of the log have failed: each is reported once.
_failed: set[type[Exception]] = set()

LogFields = dict[str, Any]
"""What the two log records of a stream have in common."""


def opened(kind: Kind, environ: WSGIEnvironment) -> LogFields | None:
    """Count a stream whose response begins, and log it. `ended` takes what is returned."""
    with LOCK:
        COUNTS.streams[kind].opened += 1
    if not log.isEnabledFor(logging.INFO):
        return None
    fields: LogFields = {
        "request_id": environ.get(request_ids.KEY),
        "kind": kind,
        "method": environ.get("REQUEST_METHOD"),
        "path": safe_for_log(from_wsgi(environ.get("PATH_INFO", ""))),
        "peer": environ.get("REMOTE_ADDR"),
    }
    _log("stream opened", fields)
    return fields


def ended(
    kind: Kind, reason: Reason, fields: LogFields | None, seconds: float, events: int, sent: int
) -> None:
    """Count the end of a stream, and log it with the bytes of the body that were ``sent``."""
    with LOCK:
        COUNTS.streams[kind].ended[reason] += 1
    if fields is not None:
        more = {"seconds": round(seconds, 3), "events": events, "bytes": sent, "reason": reason}
        _log("stream ended", {**fields, **more})


def _log(message: str, fields: LogFields) -> None:
    try:
        log.info(message, extra=fields)
    except Exception as error:
        # Of a handler or filter that an application has added: no reason to lose the stream's
        # events. The log may be what fails, so this is printed.
        if type(error) not in _failed:
            _failed.add(type(error))
            print(f"a handler of {log.name} failed: {error!r}", file=sys.stderr)
