"""Masks secrets in logs and in an upstream's messages, and limits how much the log repeats.

Strangers can write these texts, so each pattern takes linear time. What precedes a value can be
matched in one way only, and no other match can begin inside it.
"""

from __future__ import annotations

import functools
import logging
import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import quote, unquote

from sseflask.logs.printable import (
    LONGEST_TRACEBACK,
    format_traceback,
    printable,
    shorten,
    shorten_lines,
)

MASK = "***"
#: Shorter keys are placeholders ("none", "ollama"): masking them would mask ordinary words.
SHORTEST_SECRET = 8
#: The most characters of a text; the rest is left out.
LONGEST = 1 << 16
#: The most characters of a message in a log.
LONGEST_MESSAGE = 4096

_Replacement = str | Callable[[re.Match[str]], str]

#: Names of secret values, plain and percent-encoded.
_NAME = (
    r"(?:(?:access|refresh|id|auth)(?:[_-]|%5F|%2D)token|(?<![a-z_])token"
    r"|api(?:[_-]|%5F|%2D)?key|client[_-]secret|(?<![a-z])password)"
)
_VALUE = r"[^&\s\"'<>#;]+"
_SECRET_NAME = re.compile(rf"(?i){_NAME}\Z")
#: The beginning of a token or key, also after a percent-encoded character.
_BEGIN = r"(?:\b|(?<=%[0-9A-Fa-f]{2}))"


def _parameter(found: re.Match[str]) -> str:
    name = unquote(found[2])
    return f"{found[1]}{found[2]}={MASK}" if _SECRET_NAME.match(name) else found[0]


def _token(found: re.Match[str]) -> str:
    """JSON Web Tokens have two dots or more; one that was cut off may have a single one."""
    head, dot, _ = found[0].partition(".")
    return MASK if dot and len(head) >= 7 else found[0]


#: The part in front of a value stays.
_VALUE_MASKED = rf"\1{MASK}"
#: Words in lower case, without one of which the pattern can't match; the pattern; the replacement.
_TABLE: tuple[tuple[str, str, _Replacement], ...] = (
    # In a query, a form or a cookie; also inside a JSON text.
    ("token key secret password", rf"(?i)({_NAME}(?:=|%3D)){_VALUE}", _VALUE_MASKED),
    (
        "token key secret password",
        rf"(?i)({_NAME}\\?['\"]\s*[:,]\s*b?\\?['\"])[^\"'\\]+",
        _VALUE_MASKED,
    ),
    ("%", r"([?&])([^=&?\s\"'<>#;]+)=" + _VALUE, _parameter),
    ("sseflask_session", r"(?i)(sseflask_session(?:=|%3D))[^&\s\"'<>#;,]+", _VALUE_MASKED),
    # Headers, plain and in the repr of a dictionary, of pairs or of the WSGI environment.
    (
        "cookie",
        r"(?i)((?<![a-z])cookie(?:['\"]\s*[:,]\s*b?['\"]|\s*:\s*)"
        r"(?=[^\s=;,:\"'/?@()<>\[\]{}\\]+=))[^\"'\r\n]+",
        _VALUE_MASKED,
    ),
    (
        "authorization",
        r"(?i)((?<![a-z])authorization['\"]?\s*[:=,]\s*(?:b?['\"]\s*)?)(\w+\s+)?[^\s\"',;]+",
        lambda found: f"{found[1]}{found[2] or ''}{MASK}",
    ),
    ("key", r"(?i)((?<![a-z])api[_-]?key\s*:\s*)[^\s\"',;]+", _VALUE_MASKED),
    ("bearer", r"(?i)(\bbearer(?:\s+|%20|\+))[\w.~+/=*-]{8,}", _VALUE_MASKED),
    # User names and passwords in addresses.
    ("://", r"(://)[^\s/@\"'<>]+@", rf"\1{MASK}@"),
    # JSON Web Tokens, and keys like OpenAI's, also as upstreams half-mask them.
    ("eyj", _BEGIN + r"eyJ[\w-]+(?:\.[\w-]+)*", _token),
    ("sk-", _BEGIN + r"sk-[\w*.-]{6,}", f"sk-{MASK}"),
)
_PATTERNS = [(words.split(), re.compile(pattern), new) for words, pattern, new in _TABLE]


def mask(text: str, secrets: Iterable[str] = ()) -> str:
    """Replace tokens, keys and the given secrets in a text with ``***``. Takes linear time.

    Secrets are also found percent-encoded; those under 8 characters are not masked. What is beyond
    `LONGEST` characters is left out.
    """
    for secret in secrets:
        if len(secret) >= SHORTEST_SECRET:
            text = text.replace(secret, MASK).replace(_quoted(secret), MASK)
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]}... ({len(text) - LONGEST} more characters)"
    lower = text.lower()
    for words, pattern, replacement in _PATTERNS:
        for word in words:
            if word in lower:
                text = pattern.sub(replacement, text)
                break
    return text


_SECRET_FIELD = re.compile(
    r"(?i)(?:.*[_-])?(?:token|secret|password|passwd|authorization|cookie|api[_-]?key)\Z"
)


def is_secret_name(name: str) -> bool:
    """Whether a value with this name must not be in a log, whatever it is."""
    return _SECRET_FIELD.match(name[-64:]) is not None


@functools.lru_cache(maxsize=64)
def _quoted(secret: str) -> str:
    return quote(secret, safe="")


#: The most records of one kind that are written, and the seconds for them.
_MOST, _SECONDS = 100, 60.0
#: The number of kinds; beyond it the oldest is forgotten.
_KINDS = 256
#: gunicorn logs everything from the same few lines; its messages begin differently.
_BEGINNING = 20


@dataclass(slots=True)
class _Kind:
    began: float
    seen: int = 0
    left_out: int = 0


class Floods:
    """Counts the records of each kind: from one place in the code, beginning alike. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kinds: dict[tuple[str, int, str], _Kind] = {}

    def count(self, record: logging.LogRecord) -> int | None:
        """How many of a record's kind were left out before it; ``None`` to leave it out too."""
        key = (record.pathname, record.lineno, str(record.msg)[:_BEGINNING])
        now = time.monotonic()
        with self._lock:
            if key not in self._kinds and len(self._kinds) >= _KINDS:
                del self._kinds[next(iter(self._kinds))]
            kind = self._kinds.setdefault(key, _Kind(now))
            if now >= kind.began + _SECONDS:
                kind.began, kind.seen = now, 0
            kind.seen += 1
            if kind.seen > _MOST:
                kind.left_out += 1
                return None
            left_out, kind.left_out = kind.left_out, 0
            return left_out


_COLOUR = re.compile("\x1b\\[[0-9;]*m")


class MaskingFilter(logging.Filter):
    """Makes records safe for a log, whatever their content. Thread-safe.

    Secrets in message and traceback are masked. A message is one line of printable characters,
    `LONGEST_MESSAGE` of them at most; no line of a traceback looks like the beginning of a record.
    Of warnings and errors of one kind a hundred a minute are written (`Floods`), and the next
    one says how many were left out.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__()
        self.secrets = tuple(secrets)
        self._floods = Floods()

    def filter(self, record: logging.LogRecord) -> bool:
        dropped: bool | None = getattr(record, "_sseflask_dropped", None)
        if dropped is None:  # each handler may have such a filter: this is the first
            dropped = record._sseflask_dropped = self._prepare(record)
        return not dropped

    def _prepare(self, record: logging.LogRecord) -> bool:
        """Make a record safe for the log; returns whether it is to be dropped."""
        left_out = self._floods.count(record) if record.levelno >= logging.WARNING else 0
        if left_out is None:
            return True
        try:
            message = record.getMessage()
        except Exception:
            # A wrong format string, or an argument whose str() fails, must be logged, and not end
            # the request.
            message = _unformatted(record)
        if record.name == "werkzeug":
            message = _COLOUR.sub("", message)  # its own colours: it has escaped those of clients
        message = shorten(printable(mask(message, self.secrets)), LONGEST_MESSAGE)
        if left_out:
            message = f"{message} (and {left_out} more like it, which were left out)"
        record.msg = message
        record.args = None
        text = format_traceback(record.exc_info) if record.exc_info else record.exc_text
        if text:
            text = mask(shorten_lines(text, LONGEST_TRACEBACK), self.secrets)
            record.exc_text = "\n".join(printable(line) for line in text.split("\n"))
        return False


def is_safe(record: logging.LogRecord) -> bool:
    """Whether a `MaskingFilter` has made the record safe for a log."""
    return hasattr(record, "_sseflask_dropped")


def _unformatted(record: logging.LogRecord) -> str:
    try:
        return f"{record.msg} % {record.args!r}"
    except Exception as error:
        kind = type(error).__name__
        return f"a message of {record.pathname}:{record.lineno} can't be written: {kind}"


def secrets_of(logger: logging.Logger) -> tuple[str, ...]:
    known = (each for each in logger.filters if isinstance(each, MaskingFilter))
    return tuple(dict.fromkeys(secret for each in known for secret in each.secrets))


def guard(logger: logging.Logger, secrets: Iterable[str] = ()) -> None:
    """Give a logger, not those below it, a `MaskingFilter`.

    If it has one, that is replaced by one that knows the secrets of both.
    """
    all_secrets = dict.fromkeys((*secrets, *secrets_of(logger)))
    for each in [each for each in logger.filters if isinstance(each, MaskingFilter)]:
        logger.removeFilter(each)
    logger.addFilter(MaskingFilter(all_secrets))


def safe_for_log(text: str) -> str:
    """Make a text safe for a log record; the secrets of the logger ``sseflask`` are masked too."""
    secrets = secrets_of(logging.getLogger("sseflask"))
    return shorten(printable(mask(text, secrets)), LONGEST_MESSAGE)
