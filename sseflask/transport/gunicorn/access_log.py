"""What gunicorn's logger is to hear of a stream that ends when its request is long forgotten.

Request, response and environ are kilobytes; the line they give for the access log, with gaps for
what only the end knows, is a few hundred bytes.
"""

from __future__ import annotations

import re
import secrets
import sys
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from gunicorn.glogging import Logger

from sseflask.logs.access_fields import fields_for

if TYPE_CHECKING:
    from gunicorn.http.wsgi import Response

__all__ = ["begin", "end"]

#: The atoms of the format that are not known before the end: time, duration, size.
_LATE = ("t", "T", "D", "M", "L", "B", "b")
#: What a client can't know, or a path with ``%00`` could have gaps of its own.
_MARK = secrets.token_hex(8)
_GAP = re.compile(rf"\x00{_MARK}(\w)\x00")


class _Structured(NamedTuple):
    """A line with fields, for a log in JSON."""

    text: str
    fields: dict[str, Any]


class _Counted(NamedTuple):
    """For ``--statsd-host``."""

    line: str | _Structured | None
    status: int


class _Kept(NamedTuple):
    """For a logger of somebody's own, which may ask for anything."""

    response: Any
    request: Any
    environ: dict[str, Any]


def begin(log: Logger, response: Response, environ: dict[str, Any]) -> object | None:
    """Give what `end` takes, or ``None`` where the end is nothing to the logger."""
    if type(log).access is Logger.access:
        return _line(log, response, environ)
    statsd = sys.modules.get("gunicorn.instrument.statsd")
    if statsd is not None and type(log).access is statsd.Statsd.access:
        return _Counted(_line(log, response, environ), int(str(response.status).split()[0]))
    return _kept(response, environ)


def _kept(response: Response, environ: dict[str, Any]) -> _Kept:
    """Copies without what would keep the connection: sockets, bodies, contexts."""
    request = response.req
    told = ("method", "uri", "path", "query", "version", "headers", "scheme", "peer_addr")
    return _Kept(
        SimpleNamespace(
            status=response.status,
            status_code=getattr(response, "status_code", None),
            headers=list(response.headers),
        ),
        SimpleNamespace(**{name: getattr(request, name, None) for name in told}),
        {name: value for name, value in environ.items() if isinstance(value, str)},
    )


def _line(log: Logger, response: Response, environ: dict[str, Any]) -> str | _Structured | None:
    """The line as far as it is known, or ``None`` where there is no access log."""
    if not log.access_log_enabled:
        return None
    try:
        atoms: dict[str, Any] = {**log.atoms(response, response.req, environ, timedelta(0))}
        atoms.update((name, f"\0{_MARK}{name}\0") for name in _LATE)
        line: str = log.cfg.access_log_format % log.atoms_wrapper_class(atoms)
    except Exception:  # of a format that is wrong gunicorn tells with the next ordinary request
        return None
    fields = fields_for(log.access_log, atoms)
    return line if fields is None else _Structured(line, fields)


def end(log: Logger, begun: object, seconds: float, sent: int) -> None:
    """Write the line, count the request.

    Args:
        log: gunicorn's.
        begun: what `begin` gave.
        seconds: how long the request took.
        sent: bytes of the response's body.
    """
    if isinstance(begun, (str, _Structured)):
        _write(log, begun, seconds, sent)
    elif isinstance(begun, _Counted):
        if begun.line is not None:
            _write(log, begun.line, seconds, sent)
        # As its access() does after the line.
        statsd: Any = log
        statsd.timer("gunicorn.request.duration", seconds * 1000)
        statsd.increment("gunicorn.requests", 1)
        statsd.increment(f"gunicorn.request.status.{begun.status}", 1)
    elif isinstance(begun, _Kept):
        begun.response.sent = begun.response.response_length = sent
        log.access(begun.response, begun.request, begun.environ, timedelta(seconds=seconds))


def _write(log: Logger, line: str | _Structured, seconds: float, sent: int) -> None:
    text, fields = line if isinstance(line, _Structured) else (line, None)
    microseconds = round(seconds * 1_000_000)
    known = {
        "t": log.now(),
        "T": microseconds // 1_000_000,
        "D": microseconds,
        "M": microseconds // 1000,
        "L": f"{microseconds // 1_000_000}.{microseconds % 1_000_000:06d}",
        "B": sent,
        "b": sent or "-",
    }
    extra = None if fields is None else {**fields, "seconds": round(seconds, 6), "bytes": sent}
    log.access_log.info("%s", _GAP.sub(lambda gap: str(known.get(gap[1], "")), text), extra=extra)
