"""The content of a line of gunicorn's access log, as fields of its record. No Flask, no I/O."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from sseflask.logs.printable import from_wsgi
from sseflask.logs.request_ids import KEY

#: The lines of the access log as text, and the shorter ones of records that have fields.
FORMAT = f'%(h)s %(l)s %(u)s %(t)s "%(m)s %(U)s %(H)s" %(s)s %(b)s "%(a)s" %(L)ss %({{{KEY}}}e)s'
SHORT_FORMAT = "%(m)s %(U)s %(s)s"

_ID, _UPSTREAM_ID = f"{{{KEY}}}e", "{x-upstream-request-id}o"

#: The headers and variables that the fields are made of, as a format names them.
FIELDS = (_ID, _UPSTREAM_ID)


class AccessFields(logging.Filter):
    """Adds the fields to records of ``gunicorn.access``.

    Must be the first of a logger's filters: the others drop the atoms.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, Mapping):
            atoms = record.args
            record.__dict__.update(_known_at_once(atoms))
            record.__dict__.update(seconds=_seconds(atoms.get("L")), bytes=atoms.get("B") or 0)
        return True


def fields_for(logger: logging.Logger, atoms: Mapping[str, Any]) -> dict[str, Any] | None:
    """The fields of a record that is logged later, without ``seconds`` and ``bytes``.

    ``None`` if the access log's logger has no `AccessFields`.
    """
    wanted = any(isinstance(each, AccessFields) for each in logger.filters)
    return _known_at_once(atoms) if wanted else None


def _known_at_once(atoms: Mapping[str, Any]) -> dict[str, Any]:
    status = str(atoms.get("s", ""))
    fields = {
        "request_id": atoms.get(_ID),
        "upstream_request_id": atoms.get(_UPSTREAM_ID),
        "peer": atoms.get("h"),
        "method": atoms.get("m"),
        "path": from_wsgi(str(atoms.get("U") or "")),
        "status": int(status) if status.isdecimal() else None,
        # gunicorn escapes quotation marks.
        "user_agent": from_wsgi(str(atoms.get("a") or "")).replace('\\"', '"'),
    }
    return {name: value for name, value in fields.items() if value not in (None, "", "-")}


def _seconds(text: Any) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):  # a logger class of the application's own
        return None
