"""Keys by which a client repeats a request without doing it twice.

After draft-ietf-httpapi-idempotency-key-header.
"""

from __future__ import annotations

import hashlib
import json
import re

from flask import Request

from sseflask.errors import invalid
from sseflask.web.cursor import is_cursor

HEADER = "Idempotency-Key"
#: Our spelling in a query.
PARAMETER = "idempotency_key"

#: The response header of a repetition.
REPLAYED = "Idempotency-Replayed"

_KEY = re.compile(r"[\x21-\x7e]{1,255}\Z", re.ASCII)


def check_key(key: str, param: str = HEADER) -> str:
    """Refuse what is no key, with 400; ``param`` is where it came in."""
    if not isinstance(key, str) or not _KEY.match(key):
        raise invalid(
            f"The {param} must be 1 to 255 printable ASCII characters without spaces.",
            param=param,
            code="invalid_idempotency_key",
        )
    return key


def given_key(request: Request, query: str | None = None) -> str | None:
    """The request's key, checked; ``None`` without one.

    The header wins over the parameter of the query, for clients that can't set it.
    """
    header = request.headers.get(HEADER)
    if header is not None:
        return check_key(header)
    return None if query is None else check_key(query, PARAMETER)


def scoped(subject: str, scope: str, key: str | None) -> str | None:
    """The key as a store gets it, scoped to its sender and route."""
    if key is None:
        return None
    return hashlib.sha256(json.dumps([subject, scope, key]).encode()).hexdigest()


def digest_of(request: Request) -> bytes:
    """What stands for the content of a request.

    The path, the query but for what says where the client is, and the body as far as it was read.
    """
    query = [
        (name, value)
        for name, value in request.args.items(multi=True)
        if not is_cursor(name) and name != PARAMETER
    ]
    content = json.dumps([request.path, query]).encode(errors="surrogatepass")
    return hashlib.sha256(content + b"\0" + _body(request)).digest()


def _body(request: Request) -> bytes:
    body: bytes = vars(request).get("_cached_data") or b""
    if not body and "form" in vars(request):
        body = repr(sorted(request.form.items(multi=True))).encode(errors="surrogatepass")
    return body
