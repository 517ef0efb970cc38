"""A line of gunicorn's access log for a stream that ends when its request is long forgotten.

Request, response and environ are kilobytes; the line they give, with gaps for what only the end
knows, is a few hundred bytes.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gunicorn.glogging import Logger
    from gunicorn.http.wsgi import Response

__all__ = ["begin", "end"]

#: The atoms of the format that are not known before the end: time, duration, size.
_LATE = ("t", "T", "D", "M", "L", "B", "b")
_GAP = re.compile(r"\0(\w)\0")


def begin(log: Logger, response: Response, environ: dict[str, Any]) -> str | None:
    """Give the line as far as it is known, or ``None`` where there is no access log."""
    if not log.access_log_enabled:
        return None
    atoms: dict[str, Any] = {**log.atoms(response, response.req, environ, timedelta(0))}
    atoms.update((name, f"\0{name}\0") for name in _LATE)
    try:
        line: str = log.cfg.access_log_format % log.atoms_wrapper_class(atoms)
    except Exception:  # of a format that is wrong gunicorn tells with the next ordinary request
        return None
    return line


def end(log: Logger, line: str, seconds: float, sent: int) -> None:
    """Write the line.

    Args:
        log: gunicorn's.
        line: what `begin` gave.
        seconds: how long the request took.
        sent: bytes of the response's body.
    """
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
    log.access_log.info("%s", _GAP.sub(lambda gap: str(known.get(gap[1], "")), line))
