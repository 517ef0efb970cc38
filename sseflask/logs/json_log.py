"""The log as JSON, one object a line, for log collectors. Needs python-json-logger."""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import logging
import math
import sys
import threading
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from itertools import islice
from types import TracebackType
from typing import Any

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonEncoder, JsonFormatter

from sseflask.logs import request_ids
from sseflask.logs.captured_output import Printed
from sseflask.logs.masking import MASK, Floods, MaskingFilter, is_safe, is_secret_name, mask
from sseflask.logs.printable import format_traceback, printable, shorten, shorten_lines

#: The most bytes of a line: Docker splits lines of more than 16 KiB, and neither part is JSON.
LONGEST_LINE = 16_000

#: The logger of the begin and the end of each stream.
STREAMS = "sseflask.streams"

#: The most characters of an extra field, the number of these fields, and their depth.
_LONGEST_FIELD, _MOST_FIELDS, _DEEPEST = 1024, 20, 4
#: The characters to which each text is shortened, step by step, until the line is short enough.
_SHORTER = (4000, 500, 10)

_NAMES = {
    "levelname": "level",
    "name": "logger",
    "process": "pid",
    "exc_info": "exception",
    "stack_info": "stack",
}


class JsonLines(JsonFormatter):
    """Formats any record as one line of JSON, and never raises. Thread-safe.

    The fields are ``time`` (RFC 3339, UTC), ``level``, ``logger``, ``message``, ``pid``; if the
    record has them ``request_id``, ``exception`` (the traceback) and ``stack``; and the record's
    ``extra`` fields, unless they have one of these names. A line has ASCII characters only, at
    most `LONGEST_LINE`, and masks the same as `MaskingFilter`.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__(
            ("levelname", "name", "message", "process"),
            rename_fields=_NAMES,
            reserved_attrs=[*RESERVED_ATTRS, *_NAMES.values(), "time"],
            timestamp="time",
        )
        self._secrets = tuple(secrets)
        self._encoder = JsonEncoder()

    def format(self, record: logging.LogRecord) -> str:
        try:
            return super().format(self._prepared(record))
        except Exception as error:  # a failure of the log must not end the request
            message = f"a record could not be formatted: {type(error).__name__}"
            moment = datetime.fromtimestamp(record.created, tz=timezone.utc)
            fields = {"time": _rfc3339(moment), "level": record.levelname}
            return json.dumps({**fields, "logger": record.name, "message": message})

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        made = {"time": _rfc3339(log_data.pop("time"))}
        texts: dict[str, Any] = {
            name: log_data.pop(name) for name in ("exception", "stack") if name in log_data
        }
        standard = len(_NAMES)
        for name, value in islice(log_data.items(), standard + _MOST_FIELDS):
            shown, secret = _name(name)
            # The message is masked already.
            made[shown] = MASK if secret else value if name == "message" else self._plain(value, 0)
        made.update(texts)
        return made

    def jsonify_log_record(self, log_data: dict[str, Any]) -> str:
        line: str = super().jsonify_log_record(log_data)
        for most in _SHORTER:
            if len(line) <= LONGEST_LINE:
                break
            log_data = {name: _shortened(value, most) for name, value in log_data.items()}
            line = super().jsonify_log_record(log_data)
        return line

    def _prepared(self, record: logging.LogRecord) -> logging.LogRecord:
        """A copy of the record: other handlers use the original."""
        record = copy.copy(record)
        if not is_safe(record):
            record.msg, record.args = self._text(record.getMessage(), most=None), None
            if record.exc_info and not record.exc_text:
                record.exc_text = format_traceback(record.exc_info)
            record.exc_text = record.exc_text and self._lines(record.exc_text)
        record.exc_info = None  # the text is safe for the log
        if record.stack_info:
            record.stack_info = self._lines(record.stack_info)
        if not getattr(record, "request_id", None):
            record.__dict__.pop("request_id", None)
            if id := request_ids.current():
                record.request_id = id
        return record

    def _plain(self, value: Any, depth: int) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            return value if value.bit_length() <= 64 else self._text(hex(value))
        if isinstance(value, float):
            return value if math.isfinite(value) else str(value)
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, (bytes, bytearray)):
            return self._text(value[:_LONGEST_FIELD].decode("utf-8", "backslashreplace"))
        if depth >= _DEEPEST:
            return self._text(repr(value))
        if isinstance(value, Mapping):
            items = islice(value.items(), _MOST_FIELDS)
            named = ((*_name(key), each) for key, each in items)
            return {name: MASK if x else self._plain(each, depth + 1) for name, x, each in named}
        if isinstance(value, (list, tuple, set, frozenset)):
            return [self._plain(each, depth + 1) for each in islice(value, _MOST_FIELDS)]
        return self._plain(self._encoder.default(value), depth + 1)

    def _text(self, text: str, most: int | None = _LONGEST_FIELD) -> str:
        text = printable(mask(text, self._secrets))
        return text if most is None else shorten(text, most)

    def _lines(self, text: str) -> str:
        text = mask(text, self._secrets)
        return "\n".join(printable(line) for line in text.split("\n"))


@functools.lru_cache(maxsize=512)
def _known_name(name: str) -> tuple[str, bool]:
    return printable(mask(name))[:64], is_secret_name(name)


def _name(name: object) -> tuple[str, bool]:
    """A field's name, and whether it is the name of a secret."""
    return _known_name(str(name)[:128])


def _shortened(value: Any, most: int) -> Any:
    if isinstance(value, (dict, list)):
        value = json.dumps(value)
    if not isinstance(value, str) or len(value) <= most:
        return value
    return shorten_lines(value, most) if "\n" in value and most > 100 else shorten(value, most)


def _rfc3339(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds")[:-6] + "Z"


def use_for(handler: logging.Handler, secrets: Iterable[str] = ()) -> None:
    """Make a handler of a stream or a file write JSON, also about its own errors."""
    stream = getattr(handler, "stream", None)
    if isinstance(stream, Printed) and isinstance(handler, logging.StreamHandler):
        handler.setStream(stream.stream)
    handler.setFormatter(JsonLines(secrets))
    handler.handleError = functools.partial(_unwritten, handler)  # type: ignore[method-assign]


_unwritten_lines = Floods()


def _unwritten(handler: logging.Handler, record: logging.LogRecord) -> None:
    stream = sys.stderr.stream if isinstance(sys.stderr, Printed) else sys.stderr
    if getattr(handler, "stream", None) is stream:
        return  # there is no other place to report it
    reason = f"a line of {record.name} could not be written: {sys.exc_info()[1]!r}"
    report = logging.LogRecord("root", logging.ERROR, "", 0, reason, None, None)
    if _unwritten_lines.count(report) is None:  # if a disk is full, each request fails to log
        return
    with contextlib.suppress(OSError, ValueError):
        print(JsonLines().format(report), file=stream)


def take_over_prints(secrets: Iterable[str] = ()) -> None:
    """Write printed text as JSON too, line by line; existing handlers stay. Idempotent."""
    for name, level in (("stdout", logging.INFO), ("stderr", logging.WARNING)):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, Printed):
            made = functools.partial(_line_of, JsonLines(secrets), name, level)
            setattr(sys, name, Printed(stream, made, LONGEST_LINE))


def _line_of(lines: JsonLines, name: str, level: int, text: str) -> str:
    return lines.format(logging.LogRecord(name, level, "", 0, text, None, None))


def install(secrets: Iterable[str] = ()) -> None:
    """Write the whole log, warnings and uncaught exceptions to standard error as JSON. Idempotent.

    If the root logger has a handler already, that handler gets all of it.
    """
    root = logging.getLogger()
    if not root.handlers:
        handler = logging.StreamHandler(sys.stderr)
        use_for(handler, secrets)
        handler.addFilter(MaskingFilter(secrets))
        root.addHandler(handler)
    ours = logging.getLogger("sseflask")
    if ours.level == logging.NOTSET:
        ours.setLevel(logging.INFO)
    logging.getLogger(STREAMS).setLevel(logging.INFO)
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    sys.unraisablehook = _ignored


def log_start_failure(reason: object) -> None:
    """Log in one line why the service does not start."""
    install()
    logging.getLogger("sseflask").critical("%s", reason)


def log_greenlet_errors() -> None:
    """Log exceptions that end greenlets of this thread."""
    import gevent

    hub: Any = gevent.get_hub()
    hub.print_exception = _uncaught_in_greenlet


def _uncaught(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, where)
    else:
        logging.getLogger().critical("uncaught exception", exc_info=(kind, error, where))


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not issubclass(args.exc_type, SystemExit):
        name = args.thread.name if args.thread else "a thread"
        logging.getLogger().error("uncaught exception in %s", name, exc_info=args.exc_value)


def _ignored(args: sys.UnraisableHookArgs) -> None:
    if args.exc_value is not None:
        message = args.err_msg or "Exception ignored in"
        logging.getLogger().error("%s: %r", message, args.object, exc_info=args.exc_value)


def _uncaught_in_greenlet(context: object, kind: Any, error: Any, where: Any) -> None:
    found = (kind, error if isinstance(error, BaseException) else kind(error), where)
    name = "a callback" if context is None else context  # a failed greenlet is falsy
    logging.getLogger().error("%s failed", name, exc_info=found)
