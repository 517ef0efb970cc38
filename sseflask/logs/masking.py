"""Keeps secrets out of text: logs above all, and what upstreams say about our key.

Strangers write such text, so each pattern takes linear time: of what stands in front of a value
nothing can be matched in two ways, and none of it holds the beginning of another match.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable, Iterable
from urllib.parse import quote, unquote

from sseflask.logs.printable import (
    LONGEST_TRACEBACK,
    format_traceback,
    printable,
    shorten,
    shorten_lines,
)
from sseflask.logs.rate_limit import Floods

__all__ = [
    "LONGEST",
    "MASK",
    "MaskingFilter",
    "fit_for_log",
    "guard",
    "is_fit",
    "is_secret_name",
    "mask",
    "secrets_of",
]

MASK = "***"
#: Keys shorter than this are placeholders ("none", "ollama"): masking them would maul plain words.
SHORTEST_SECRET = 8
#: Characters of a text that are looked at; the rest is left out.
LONGEST = 1 << 16
#: Characters of one message in a log.
LONGEST_MESSAGE = 4096

_Replacement = str | Callable[[re.Match[str]], str]

#: Names of values that are secret, as they are written and percent-encoded.
_NAME = (
    r"(?:(?:access|refresh|id|auth)(?:[_-]|%5F|%2D)token|(?<![a-z_])token"
    r"|api(?:[_-]|%5F|%2D)?key|client[_-]secret|(?<![a-z])password)"
)
_VALUE = r"[^&\s\"'<>#;]+"
_SECRET_NAME = re.compile(rf"(?i){_NAME}\Z")
#: A token or key begins here: also behind a character that is percent-encoded.
_BEGIN = r"(?:\b|(?<=%[0-9A-Fa-f]{2}))"


def _parameter(found: re.Match[str]) -> str:
    """A parameter whose name is percent-encoded, as servers read it."""
    name = unquote(found[2])
    return f"{found[1]}{found[2]}={MASK}" if _SECRET_NAME.match(name) else found[0]


def _token(found: re.Match[str]) -> str:
    """JSON Web Tokens have two dots or more; one that was cut off may have a single one."""
    head, dot, _ = found[0].partition(".")
    return MASK if dot and len(head) >= 7 else found[0]


#: Words that must be there for a pattern to match at all, in lower case; the pattern; what stands
#: in the place of what it finds.
_PATTERNS: tuple[tuple[tuple[str, ...], re.Pattern[str], _Replacement], ...] = (
    # In a query, a form or a cookie, as it is written and as a JSON text would hold it.
    (
        ("token", "key", "secret", "password"),
        re.compile(rf"(?i)({_NAME}(?:=|%3D)){_VALUE}"),
        rf"\1{MASK}",
    ),
    (
        ("token", "key", "secret", "password"),
        re.compile(rf"(?i)({_NAME}\\?['\"]\s*[:,]\s*b?\\?['\"])[^\"'\\]+"),
        rf"\1{MASK}",
    ),
    (("%",), re.compile(r"([?&])([^=&?\s\"'<>#;]+)=" + _VALUE), _parameter),
    (
        ("sseflask_session",),
        re.compile(r"(?i)(sseflask_session(?:=|%3D))[^&\s\"'<>#;,]+"),
        rf"\1{MASK}",
    ),
    # Headers, bare and in the representation of a dictionary, of pairs or of WSGI's environment.
    (
        ("cookie",),
        re.compile(
            r"(?i)((?<![a-z])cookie(?:['\"]\s*[:,]\s*b?['\"]|\s*:\s*)"
            r"(?=[^\s=;,:\"'/?@()<>\[\]{}\\]+=))[^\"'\r\n]+"
        ),
        rf"\1{MASK}",
    ),
    (
        ("authorization",),
        re.compile(
            r"(?i)((?<![a-z])authorization['\"]?\s*[:=,]\s*(?:b?['\"]\s*)?)(\w+\s+)?[^\s\"',;]+"
        ),
        lambda found: f"{found[1]}{found[2] or ''}{MASK}",
    ),
    (
        ("key",),
        re.compile(r"(?i)((?<![a-z])api[_-]?key\s*:\s*)[^\s\"',;]+"),
        rf"\1{MASK}",
    ),
    (("bearer",), re.compile(r"(?i)(\bbearer(?:\s+|%20|\+))[\w.~+/=*-]{8,}"), rf"\1{MASK}"),
    # User names and passwords in addresses.
    (("://",), re.compile(r"(://)[^\s/@\"'<>]+@"), rf"\1{MASK}@"),
    # JSON Web Tokens, and keys in OpenAI's form, also the way upstreams half-hide them.
    (("eyj",), re.compile(_BEGIN + r"eyJ[\w-]+(?:\.[\w-]+)*"), _token),
    (("sk-",), re.compile(_BEGIN + r"sk-[\w*.-]{6,}"), f"sk-{MASK}"),
)


def mask(text: str, secrets: Iterable[str] = ()) -> str:
    """Replace tokens, keys and the given secrets in a text.

    Takes linear time for any text.

    Args:
        text: any text; of one that is longer than `LONGEST` characters the rest is left out.
        secrets: values to hide wherever they stand, percent-encoded too; those under 8 characters
            are left.

    Returns:
        the text with ``***`` in their places.
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
    """Whether what has this name must not be in a log, whatever it looks like."""
    return _SECRET_FIELD.match(name[-64:]) is not None


@functools.lru_cache(maxsize=64)
def _quoted(secret: str) -> str:
    return quote(secret, safe="")


_COLOUR = re.compile("\x1b\\[[0-9;]*m")


class MaskingFilter(logging.Filter):
    """Makes records fit for a log, whoever wrote what is in them. Thread-safe.

    Secrets in message and traceback are masked. A message is one line of printable characters,
    `LONGEST_MESSAGE` of them at most; no line of a traceback looks like the beginning of a record.
    Of warnings and errors of one kind a hundred a minute are let through (`Floods`), and the next
    one says how many were not.

    Args:
        secrets: values to hide besides what is recognised by its form.

    Attributes:
        secrets: these.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__()
        self.secrets = tuple(secrets)
        self._floods = Floods()

    def filter(self, record: logging.LogRecord) -> bool:
        dropped: bool | None = getattr(record, "_sseflask_dropped", None)
        if dropped is None:  # no other of these has seen it: there may be one for each handler
            dropped = record._sseflask_dropped = self._prepare(record)
        return not dropped

    def _prepare(self, record: logging.LogRecord) -> bool:
        """Make a record fit for the log; whether it is to be dropped."""
        left_out = 0
        if record.levelno >= logging.WARNING:
            counted = self._floods.count(record)
            if counted is None:
                return True
            left_out = counted
        try:
            message = record.getMessage()
        except Exception:
            # A wrong format string, or an argument without a text, must show up in the log, not end
            # the request that logs.
            message = _unformatted(record)
        if record.name == "werkzeug":
            message = _COLOUR.sub("", message)  # its own: what clients send it has escaped
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


def is_fit(record: logging.LogRecord) -> bool:
    """Whether a `MaskingFilter` has made the record fit for a log."""
    return hasattr(record, "_sseflask_dropped")


def _unformatted(record: logging.LogRecord) -> str:
    try:
        return f"{record.msg} % {record.args!r}"
    except Exception as error:
        kind = type(error).__name__
        return f"a message of {record.pathname}:{record.lineno} can't be written: {kind}"


def secrets_of(logger: logging.Logger) -> tuple[str, ...]:
    """The secrets that a logger is guarded with."""
    known = (each for each in logger.filters if isinstance(each, MaskingFilter))
    return tuple(dict.fromkeys(secret for each in known for secret in each.secrets))


def guard(logger: logging.Logger, secrets: Iterable[str] = ()) -> None:
    """Have what is written to a logger, not to those below it, made fit for a log.

    May be repeated: there is one filter, which knows the secrets of all times.

    Args:
        logger: any.
        secrets: see `MaskingFilter`.
    """
    all_secrets = dict.fromkeys((*secrets, *secrets_of(logger)))
    for each in [each for each in logger.filters if isinstance(each, MaskingFilter)]:
        logger.removeFilter(each)
    logger.addFilter(MaskingFilter(all_secrets))


def fit_for_log(text: str) -> str:
    """Make one value fit for a log record, as `guard` makes messages.

    Args:
        text: any; the secrets that the logger ``sseflask`` is guarded with are masked too.
    """
    secrets = secrets_of(logging.getLogger("sseflask"))
    return shorten(printable(mask(text, secrets)), LONGEST_MESSAGE)
