"""gunicorn's access log, for streams that end when their request is long forgotten.

Request, response and environ are kilobytes. The line for the access log, with gaps for what only
the end knows, is a hundred bytes or two. gunicorn makes such a line from `Logger.atoms` in one
step; `tests/unit/transport/gunicorn/test_access_log.py` compares the two.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Set
from datetime import timedelta
from functools import lru_cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from gunicorn.glogging import Logger

from sseflask.logs.access_fields import FIELDS, fields_for

if TYPE_CHECKING:
    from gunicorn.http.wsgi import Response


#: The atoms of the format that are not known before the end (time, duration, size), and the gap for
#: each in a line. A private use character is in no request: WSGI's strings are Latin-1.
_GAPS = {name: chr(0xE000 + ord(name)) for name in "tTDMLBb"}


#: What `Logger.atoms` itself reads of an environment.
_READ = (
    *("REMOTE_ADDR", "REQUEST_METHOD", "RAW_URI", "SERVER_PROTOCOL", "PATH_INFO", "QUERY_STRING"),
    *("HTTP_REFERER", "HTTP_USER_AGENT", "HTTP_AUTHORIZATION"),
)

#: In a format, a header of the request (i), of the response (o), or a variable (e).
_NAMED = re.compile(r"\{([^}]+)\}([ioe])")


class _JSONLine(NamedTuple):
    """A line with fields, for a log in JSON; otherwise the line alone is kept."""

    line: bytes
    fields: dict[str, Any]


class _Counted(NamedTuple):
    """For ``--statsd-host``, with an access log or without one."""

    line: bytes | _JSONLine | None
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


def _line(log: Logger, response: Response, environ: dict[str, Any]) -> bytes | _JSONLine | None:
    """The line as far as it is known, or ``None`` if there is no access log.

    In bytes, which take less memory than a text.
    """
    if not log.access_log_enabled:
        return None
    try:
        atoms = _atoms(log, response, environ)
        atoms.update(_GAPS)
        text: str = log.cfg.access_log_format % log.atoms_wrapper_class(atoms)
    except Exception:  # gunicorn logs what is wrong with the format at the next ordinary request
        return None
    line = text.encode("utf-8", "surrogatepass")
    fields = fields_for(log.access_log, atoms)
    return line if fields is None else _JSONLine(line, fields)


def _atoms(log: Logger, response: Any, environ: dict[str, Any]) -> dict[str, Any]:
    """gunicorn's atoms, but of all headers and variables only those that are asked for.

    A line has few of them, and there are dozens.
    """
    request: Any = response.req
    if type(log).atoms is Logger.atoms:
        names = {kind: _named(log.cfg.access_log_format, kind) for kind in "ioe"}
        request = SimpleNamespace(headers=_chosen(request.headers, names["i"]))
        response = SimpleNamespace(
            status=response.status,
            sent=response.sent,
            headers=_chosen(response.headers, names["o"]),
        )
        read = {name: environ[name] for name in _READ if name in environ}
        environ = {**read, **dict(_chosen(environ.items(), names["e"]))}
    return {**log.atoms(response, request, environ, timedelta(0))}


@lru_cache(maxsize=8)
def _named(format: str, kind: str) -> Set[str]:
    found = _NAMED.findall(" ".join((format, *FIELDS)))
    return frozenset(name.lower() for name, its_kind in found if its_kind == kind)


def _chosen(values: Iterable[tuple[str, Any]], names: Set[str]) -> list[tuple[str, Any]]:
    return [each for each in values if each[0].lower() in names] if names else []


def write(log: Logger, prepared: object, seconds: float, sent: int) -> None:
    """Write the line of a response that sent ``sent`` bytes of a body, count the request."""
    if isinstance(prepared, _Copies):
        prepared.response.sent = prepared.response.response_length = sent
        log.access(
            prepared.response, prepared.request, prepared.environ, timedelta(seconds=seconds)
        )
        return
    line = prepared.line if isinstance(prepared, _Counted) else prepared
    if isinstance(line, (bytes, _JSONLine)):
        _write_line(log, line, seconds, sent)
    if isinstance(prepared, _Counted):
        # As its access() does after the line.
        statsd: Any = log
        statsd.timer("gunicorn.request.duration", seconds * 1000)
        statsd.increment("gunicorn.requests", 1)
        statsd.increment(f"gunicorn.request.status.{prepared.status}", 1)


def _write_line(log: Logger, prepared: bytes | _JSONLine, seconds: float, sent: int) -> None:
    line, fields = prepared if isinstance(prepared, _JSONLine) else (prepared, None)
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
    text = line.decode("utf-8", "surrogatepass")
    text = text.translate({ord(gap): str(known[name]) for name, gap in _GAPS.items()})
    log.access_log.info("%s", text, extra=extra)
