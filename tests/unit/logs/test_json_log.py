from __future__ import annotations

import enum
import io
import json
import logging
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sseflask.logs import request_ids
from sseflask.logs.json_log import LONGEST_LINE, JsonLines
from sseflask.logs.masking import MaskingFilter
from tests.service import KEY


@pytest.fixture
def written() -> io.StringIO:
    return io.StringIO()


def make_logger(written: io.StringIO) -> logging.Logger:
    made = logging.Logger("of.somebody")
    handler = logging.StreamHandler(written)
    handler.addFilter(MaskingFilter([KEY]))
    handler.setFormatter(JsonLines([KEY]))
    made.addHandler(handler)
    return made


@pytest.fixture
def logger(written: io.StringIO) -> Iterator[logging.Logger]:
    yield make_logger(written)
    request_ids.forget()


def only_line(written: io.StringIO) -> dict[str, Any]:
    """As a program reads it that takes nothing for JSON but JSON."""
    text = written.getvalue()
    assert text.endswith("\n")
    (line,) = text.splitlines()
    assert line.isascii()
    assert len(line) <= LONGEST_LINE

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    found: dict[str, Any] = json.loads(line, parse_constant=refuse)
    return found


def test_what_a_line_has(logger: logging.Logger, written: io.StringIO) -> None:
    logger.warning("%d streams", 3)
    line = only_line(written)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line["time"])
    assert datetime.fromisoformat(line["time"][:-1] + "+00:00").tzinfo == timezone.utc
    del line["time"]
    assert isinstance(line.pop("pid"), int)
    assert line == {"level": "WARNING", "logger": "of.somebody", "message": "3 streams"}


def test_the_request_that_is_being_served(logger: logging.Logger, written: io.StringIO) -> None:
    request_ids.enter({"HTTP_X_REQUEST_ID": "abc"})
    logger.info("one")
    logger.info("two", extra={"request_id": "def"})
    request_ids.forget()
    logger.info("three")
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    assert [line.get("request_id") for line in lines] == ["abc", "def", None]
    assert "request_id" not in lines[2]


def test_an_exception(logger: logging.Logger, written: io.StringIO) -> None:
    try:
        raise ValueError(f"refused: {KEY}\n2026 [CRITICAL] forged\x1b[2J")
    except ValueError:
        logger.exception("it failed")
    line = only_line(written)
    assert line["message"] == "it failed"
    lines = line["exception"].split("\n")
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == r"ValueError: refused: ***\n2026 [CRITICAL] forged\u001b[2J"
    assert KEY not in written.getvalue()


def test_a_handler_without_the_filter_masks_too(written: io.StringIO) -> None:
    logger = make_logger(written)
    logger.handlers[0].filters.clear()
    try:
        raise ValueError(f"refused: {KEY}")
    except ValueError:
        logger.exception("access_token=abc", stack_info=True)
    assert only_line(written)["message"] == "access_token=***"
    assert only_line(written)["stack"].startswith("Stack (most recent call last):\n")
    assert KEY not in written.getvalue()


class Colour(enum.Enum):
    RED = "red"


class Broken:
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


LOOP: list[Any] = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (1.5, 1.5),
        (None, None),
        (True, True),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        (2**200, hex(2**200)),
        ("a\nb\u2028\ud800", r"a\nb\u2028\ud800"),
        (b"caf\xc3\xa9 \xff\x00", r"café \xff\u0000"),
        (datetime(2026, 11, 28, tzinfo=timezone.utc), "2026-11-28T00:00:00+00:00"),
        (Colour.RED, "red"),
        ({"a": [1, {"b": math.inf}], "token": "abc"}, {"a": [1, {"b": "inf"}], "token": "***"}),
        (f"the key is {KEY}", "the key is ***"),
        ("Bearer abcdefgh", "Bearer ***"),
    ],
)
def test_fields_of_somebodys_own(
    logger: logging.Logger, written: io.StringIO, given: Any, shown: Any
) -> None:
    logger.info("it", extra={"field": given})
    assert only_line(written)["field"] == shown


def test_a_field_whose_name_is_that_of_a_secret(
    logger: logging.Logger, written: io.StringIO
) -> None:
    secret = {"password": "abc", "X-Api-Key": "abc", "access_token": "abc", "authorization": "abc"}
    logger.info("it", extra={**secret, "completion_tokens": 7})
    line = only_line(written)
    assert {line[name] for name in secret} == {"***"}
    assert line["completion_tokens"] == 7


@pytest.mark.parametrize("name", ["time", "level", "logger", "pid", "exception"])
def test_no_field_takes_the_place_of_ours(
    logger: logging.Logger, written: io.StringIO, name: str
) -> None:
    logger.info("it", extra={name: "forged"})
    assert "forged" not in written.getvalue()


@pytest.mark.parametrize(
    "given",
    [
        {"field": LOOP},
        {"field": Broken()},
        {"field": {"x" * 10_000: ["é" * 10_000] * 10_000}},
        {f"field{n}": "\U0001f600" * 5000 for n in range(100)},
        {"field": {n: dict.fromkeys(range(100), "x" * 5000) for n in range(100)}},
    ],
)
def test_a_line_is_json_whatever_is_in_it(
    logger: logging.Logger, written: io.StringIO, given: dict[str, Any]
) -> None:
    logger.warning("\U0001f600" * 10_000, extra=given)
    assert only_line(written)["level"] == "WARNING"


def test_an_argument_without_a_text(logger: logging.Logger, written: io.StringIO) -> None:
    logger.warning("it is %s", Broken())
    assert "can't be written: RuntimeError" in only_line(written)["message"]
    written.truncate(0)
    written.seek(0)
    logger.handlers[0].filters.clear()
    logger.warning("it is %s", Broken())
    assert only_line(written)["message"] == "a record could not be formatted: RuntimeError"


def test_a_long_traceback_keeps_its_ends(logger: logging.Logger, written: io.StringIO) -> None:
    def fail(depth: int) -> None:
        if depth:
            other(depth - 1)
        raise ValueError("the reason")

    def other(depth: int) -> None:
        fail(depth)

    try:
        fail(400)
    except ValueError:
        logger.exception("it failed")
    text = only_line(written)["exception"]
    assert text.startswith("Traceback (most recent call last):\n")
    assert text.endswith("\nValueError: the reason")
    assert "characters) ..." in text


@given(st.text(), st.text(), st.dictionaries(st.text(), st.text() | st.floats() | st.binary()))
def test_any_text(message: str, argument: str, fields: dict[str, Any]) -> None:
    written = io.StringIO()
    logger = make_logger(written)
    logger.info("%s %s", message, argument, extra={"fields": fields})
    only_line(written)


PROGRAM = """
import logging, sys, threading, warnings
from sseflask.logs import json_log
json_log.install()
json_log.install()
warnings.warn("it is old", DeprecationWarning)
logging.getLogger("of.a.library").warning("a warning")
logging.getLogger("of.a.library").info("not asked for")
logging.getLogger("sseflask.streams").info("stream opened", extra={"kind": "channel"})
thread = threading.Thread(target=lambda: 1 / 0, name="worker")
thread.start()
thread.join()
class Last:
    def __del__(self):
        raise ValueError("too late")
Last()
import gevent
json_log.log_greenlet_errors()
gevent.spawn(lambda: [].pop()).join()
raise KeyError("the end")
"""


def test_all_that_nobody_else_writes() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    told = [(line["level"], line["logger"], line["message"]) for line in lines]
    assert told[0][:2] == ("WARNING", "py.warnings")
    assert "DeprecationWarning: it is old" in told[0][2]
    assert told[1:4] == [
        ("WARNING", "of.a.library", "a warning"),
        ("INFO", "sseflask.streams", "stream opened"),
        ("ERROR", "root", "uncaught exception in worker"),
    ]
    assert told[4][0] == "ERROR"
    assert "Last.__del__" in told[4][2]
    assert told[5][2].endswith("failed")
    assert told[6] == ("CRITICAL", "root", "uncaught exception")
    ends = [line["exception"].rpartition("\n")[2] for line in lines if "exception" in line]
    assert ends == [
        "ZeroDivisionError: division by zero",
        "ValueError: too late",
        "IndexError: pop from empty list",
        "KeyError: 'the end'",
    ]
    assert lines[2]["kind"] == "channel"


def gunicorns(program: str) -> list[dict[str, Any]]:
    """What a program that uses gunicorn's logger has written."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", GUNICORN + program],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return [json.loads(line) for line in (done.stdout + done.stderr).splitlines()]


GUNICORN = """
import logging
from datetime import timedelta
from types import SimpleNamespace
from gunicorn.config import Config
from sseflask.logs.access_fields import FORMAT
from sseflask.logs.gunicorn_logger import JSONLogger
from sseflask.logs.masking import guard
from sseflask.transport.gunicorn import access_log
config = Config()
config.set("accesslog", "-")
config.set("access_log_format", FORMAT)
for name in ("gunicorn.error", "gunicorn.access"):
    guard(logging.getLogger(name), ["opensesame"])
asked = SimpleNamespace(headers=[], version=(1, 1))
headers = [("X-Upstream-Request-Id", "req_1")]
response = SimpleNamespace(status="200 OK", sent=17, req=asked, headers=headers)
environ = {
    "REMOTE_ADDR": "192.0.2.7", "REQUEST_METHOD": "GET", "RAW_URI": "/a?token=abc",
    "PATH_INFO": "/a\\n{opensesame", "QUERY_STRING": "token=abc", "SERVER_PROTOCOL": "HTTP/1.1",
    "HTTP_USER_AGENT": 'a "browser"', "sseflask.request_id": "abc",
}
"""
FIELDS = {
    "level": "INFO",
    "logger": "gunicorn.access",
    "message": r"GET /a\n{*** 200",
    "request_id": "abc",
    "upstream_request_id": "req_1",
    "peer": "192.0.2.7",
    "method": "GET",
    "path": r"/a\n{***",
    "status": 200,
    "user_agent": 'a "browser"',
}


def test_gunicorns_own_lines() -> None:
    at_once, late, error = gunicorns(
        """
log = JSONLogger(config)
log.setup(config)
log.error("it failed: opensesame")
log.access(response, asked, environ, timedelta(seconds=1.5))
access_log.write(log, access_log.prepare(log, response, environ), 90061.5, 1234)
"""
    )
    assert (error["level"], error["message"]) == ("ERROR", "it failed: ***")
    for line, seconds, count in ((at_once, 1.5, 17), (late, 90061.5, 1234)):
        assert (line.pop("seconds"), line.pop("bytes")) == (seconds, count)
        del line["time"], line["pid"]
        assert line == FIELDS


def test_a_line_that_cannot_be_written() -> None:
    told, *more = gunicorns(
        """
config.set("accesslog", "/dev/full")
log = JSONLogger(config)
for _ in range(150):
    log.access(response, asked, environ, timedelta(seconds=1.5))
import os
os._exit(0)  # what is left in a buffer can't be written either
"""
    )
    assert told["level"] == "ERROR"
    assert told["message"].startswith("a line of gunicorn.access could not be written: OSError(28")
    assert len(more) == 99


def test_what_is_printed() -> None:
    lines = gunicorns(
        """
import io, os, sys
JSONLogger(config)
sys.stdout.reconfigure(encoding="utf-8", line_buffering=True)
assert (sys.stdout.name, sys.stderr.errors) == ("<stdout>", "backslashreplace")
print("one", end=" ")
print("and two")
sys.stdout.buffer.write(b"\\xff opensesame\\n")
wrapped = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8", line_buffering=True)
print("wrapped", file=wrapped)
del wrapped
import click
click.echo("clicked")
click.echo(b"clicked bytes")
print("x" * 40_000)
print("in the end")
sys.stderr.write("without an end")
if os.fork() == 0:
    sys.exit()
os.wait()
"""
    )
    told = [(line["logger"], line["level"], line["message"]) for line in lines]
    texts = [text for logger, level, text in told if (logger, level) == ("stdout", "INFO")]
    assert texts.pop(5).startswith("xxx")
    clicked = ["clicked", "clicked bytes"]
    assert texts == ["one and two", r"\xff ***", "wrapped", *clicked, "in the end"]
    assert told[7:] == [("stderr", "WARNING", "without an end")]


def test_with_statsd() -> None:
    at_once, late = gunicorns(
        """
import socket
there = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
there.bind(("127.0.0.1", 0))
config.set("statsd_host", f"127.0.0.1:{there.getsockname()[1]}")
log = JSONLogger(config)
from gunicorn.instrument.statsd import Statsd
assert isinstance(log, Statsd) and isinstance(log, JSONLogger)
log.access(response, asked, environ, timedelta(seconds=1.5))
access_log.write(log, access_log.prepare(log, response, environ), 2.5, 1234)
log.sock.close()
there.close()
"""
    )
    assert (at_once["seconds"], late["seconds"]) == (1.5, 2.5)
    assert at_once["path"] == late["path"] == r"/a\n{***"


def test_a_configuration_of_the_operators_own_wins() -> None:
    lines = gunicorns(
        """
config.set("access_log_format", "%(m)s %(U)s %(s)s %({sseflask.request_id}e)s")
config.set("logconfig_dict", {
    "version": 1,
    "formatters": {"generic": {"format": '"own %(levelname)s %(message)s"'}},
})
log = JSONLogger(config)
log.warning("it")
log.access(response, asked, {**environ, "PATH_INFO": "/a"}, timedelta(seconds=1.5))
logging.getLogger("of.a.library").warning("one")
"""
    )
    assert set(map(str, lines)) == {"own WARNING it", "own INFO GET /a 200 abc", "own WARNING one"}
