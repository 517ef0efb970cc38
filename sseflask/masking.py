"""Keeps secrets out of text: logs above all, and what upstreams say about our key."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable

__all__ = ["MaskingFilter", "mask"]

MASK = "***"
#: Keys shorter than this are placeholders ("none", "ollama"): masking them would maul plain words.
SHORTEST_SECRET = 8
_PATTERNS = (
    # In a query, a form or a cookie, as it is written and as a JSON text would hold it.
    (
        re.compile(r"(?i)((?:access_|(?<![a-z_]))token(?:=|%3D))[^&\s\"'<>#;]+"),
        rf"\1{MASK}",
    ),
    (re.compile(r"(?i)(sseflask_session(?:=|%3D))[^&\s\"'<>#;,]+"), rf"\1{MASK}"),
    (
        re.compile(r"(?i)((?:access_|(?<![a-z_]))token\\?['\"]\s*[:,]\s*\\?['\"])[^\"'\\]+"),
        rf"\1{MASK}",
    ),
    # Headers, bare and in the representation of a dictionary, of pairs or of WSGI's environment.
    (
        re.compile(
            r"(?i)((?<![a-z])cookie(?:['\"]\s*[:,]\s*['\"]|\s*:\s*)(?=[^\s=;,\"']+=))[^\"'\r\n]+"
        ),
        rf"\1{MASK}",
    ),
    (
        re.compile(r"(?i)((?<![a-z])authorization['\"]?\s*[:=,]\s*['\"]?\s*\w+\s+)[^\s\"',;]+"),
        rf"\1{MASK}",
    ),
    (re.compile(r"(?i)(\bbearer\s+)[\w.~+/=*-]{8,}"), rf"\1{MASK}"),
    # JSON Web Tokens, and keys in OpenAI's form, also the way upstreams half-hide them.
    (re.compile(r"\beyJ[\w-]{4,}\.[\w-]+\.[\w-]*"), MASK),
    (re.compile(r"\bsk-[\w*.-]{6,}"), f"sk-{MASK}"),
)

#: What each of the patterns needs to be there.
_SUSPECT = re.compile(r"(?i)token|sseflask_session|cookie|authorization|bearer|eyJ|sk-")


def mask(text: str, secrets: Iterable[str] = ()) -> str:
    """Replace tokens, keys and the given secrets in a text.

    Args:
        text: any text.
        secrets: values to hide wherever they stand; those under 8 characters are left.

    Returns:
        the text with ``***`` in their places.
    """
    for secret in secrets:
        if len(secret) >= SHORTEST_SECRET:
            text = text.replace(secret, MASK)
    if not _SUSPECT.search(text):
        return text  # as nearly every line of a log
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


class MaskingFilter(logging.Filter):
    """Masks the message and the traceback of every record that passes. Thread-safe.

    Args:
        secrets: values to hide besides what is recognised by its form.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__()
        self._secrets = tuple(secrets)
        self._formatter = logging.Formatter()

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            message = record.getMessage()
        except (TypeError, ValueError, KeyError, IndexError):
            # A wrong format string must show up in the log, not end the request that logs.
            message = f"{record.msg} % {record.args!r}"
        record.msg = mask(message, self._secrets)
        record.args = None
        if record.exc_info and not record.exc_text:
            record.exc_text = self._formatter.formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = mask(record.exc_text, self._secrets)
        return True
