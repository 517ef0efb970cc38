"""The ``Idempotency-Key`` of a request, by which a repetition is recognised."""

from __future__ import annotations

import hashlib
import json
import re

from flask import request

from sseflask.web.parameters import invalid

#: draft-ietf-httpapi-idempotency-key-header.
HEADER = "Idempotency-Key"

#: The response header of a repetition.
REPLAYED = "Idempotency-Replayed"

_KEY = re.compile(r"[\x21-\x7e]{1,255}\Z", re.ASCII)


def scoped_key(subject: str, scope: str, query: str | None = None) -> str | None:
    """The request's key, scoped to its sender and route; ``None`` without one.

    The header wins over the ``idempotency_key`` of the query, for clients that can't set headers.
    """
    key, param = request.headers.get(HEADER), HEADER
    if key is None:
        key, param = query, "idempotency_key"
    if key is None:
        return None
    if not _KEY.match(key):
        raise invalid(
            f"The {param} must be 1 to 255 printable ASCII characters without spaces.",
            param=param,
            code="invalid_idempotency_key",
        )
    return hashlib.sha256(json.dumps([subject, scope, key]).encode()).hexdigest()
