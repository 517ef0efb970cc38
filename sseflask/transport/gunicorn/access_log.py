"""gunicorn's access log, for streams that end when their request is long forgotten.

Request, response and environ are kilobytes. The line for the access log, with gaps for what only
the end knows, is a few hundred bytes. gunicorn makes such a line from `Logger.atoms` in one step;
`tests/unit/transport/gunicorn/test_access_log.py` compares the two.
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


#: The atoms of the format that are not known before the end: time, duration, size.
_LATE = ("t", "T", "D", "M", "L", "B", "b")
#: What a client can't know, or a path with ``%00`` could have gaps of its own.
_MARK = secrets.token_hex(8)
_GAP = re.compile(rf"\x00{_MARK}(\w)\x00")


class _JSONLine(NamedTuple):
    """A line with fields, for a log in JSON; otherwise the text alone is kept."""

    text: str
    fields: dict[str, Any]


class _Counted(NamedTuple):
    """For ``--statsd-host``, with an access log or without one."""

    line: str | _JSONLine | None
    status: int


class _Copies(NamedTuple):
    """For a logger of the operator's own, which may ask for anything."""

    response: Any
    request: Any
    environ: dict[str, Any]


def prepare(log: Logger, response: Response, environ: dict[str, Any]) -> object | None:
    """Give what `write` takes, or ``None`` if the logger needs nothing at the end."""
    if type(log).access is Logger.access:
        return _line(log, response, environ)
    statsd = sys.modules.get("gunicorn.instrument.statsd")
    if statsd is not None and type(log).access is statsd.Statsd.access:
        return _Counted(_line(log, response, environ), int(str(response.status).split()[0]))
    # Without what would keep the connection: sockets, bodies, contexts.
    request = response.req
    names = ("method", "uri", "path", "query", "version", "headers", "scheme", "peer_addr")
    return _Copies(
        SimpleNamespace(
            status=response.status,
            status_code=getattr(response, "status_code", None),
            headers=list(response.headers),
        ),
        SimpleNamespace(**{name: getattr(request, name, None) for name in names}),
        {name: value for name, value in environ.items() if isinstance(value, str)},
    )


def _line(log: Logger, response: Response, environ: dict[str, Any]) -> str | _JSONLine | None:
    """The line as far as it is known, or ``None`` if there is no access log."""
    if not log.access_log_enabled:
        return None
    try:
        atoms: dict[str, Any] = {**log.atoms(response, response.req, environ, timedelta(0))}
        atoms.update((name, f"\0{_MARK}{name}\0") for name in _LATE)
        line: str = log.cfg.access_log_format % log.atoms_wrapper_class(atoms)
    except Exception:  # gunicorn logs what is wrong with the format at the next ordinary request
        return None
    fields = fields_for(log.access_log, atoms)
    return line if fields is None else _JSONLine(line, fields)


def write(log: Logger, prepared: object, seconds: float, sent: int) -> None:
    """Write the line of a response that sent ``sent`` bytes of a body, count the request."""
    if isinstance(prepared, _Copies):
        prepared.response.sent = prepared.response.response_length = sent
        log.access(
            prepared.response, prepared.request, prepared.environ, timedelta(seconds=seconds)
        )
        return
    line = prepared.line if isinstance(prepared, _Counted) else prepared
    if isinstance(line, (str, _JSONLine)):
        _write_line(log, line, seconds, sent)
    if isinstance(prepared, _Counted):
        # As its access() does after the line.
        statsd: Any = log
        statsd.timer("gunicorn.request.duration", seconds * 1000)
        statsd.increment("gunicorn.requests", 1)
        statsd.increment(f"gunicorn.request.status.{prepared.status}", 1)


def _write_line(log: Logger, line: str | _JSONLine, seconds: float, sent: int) -> None:
    text, fields = line if isinstance(line, _JSONLine) else (line, None)
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
