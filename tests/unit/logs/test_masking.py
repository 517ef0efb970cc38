from __future__ import annotations

import io
import logging
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from flask import Flask

from sseflask import SSE, EventSourceResponse
from sseflask.logs import masking
from sseflask.logs.masking import MaskingFilter, guard, mask
from tests.service import KEY

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("GET /sse/v1?access_token=abc&count=3", "GET /sse/v1?access_token=***&count=3"),
        ("GET /sse/v1?count=3&ACCESS_TOKEN=abc HTTP/1.1", None),
        ("url=%2Fsse%3Faccess_token%3Dabc", "url=%2Fsse%3Faccess_token%3D***"),
        ('"GET /?access_token=abc"', '"GET /?access_token=***"'),
        ("Authorization: Bearer abc", "Authorization: Bearer ***"),
        ("{'Authorization': 'Bearer abc'}", "{'Authorization': 'Bearer ***'}"),
        (f"got {TOKEN}.", "got ***."),
        ("POST /session?token=abc", "POST /session?token=***"),
        ("token=abc&a=b", "token=***&a=b"),
        ('{"token": "abc", "a": "b"}', '{"token": "***", "a": "b"}'),
        ('"{\\"token\\":\\"abc\\"}"', '"{\\"token\\":\\"***\\"}"'),
        ("{'token': 'abc'}", "{'token': '***'}"),
        ("Cookie: a=abc; sseflask_session=abc", "Cookie: ***"),
        ("{'Cookie': 'a=abc; b=c', 'Host': 'x'}", "{'Cookie': '***', 'Host': 'x'}"),
        ("'HTTP_COOKIE': '__Host-sseflask_session=abc'", "'HTTP_COOKIE': '***'"),
        ("[('Set-Cookie', 'a=abc; Path=/')]", "[('Set-Cookie', '***')]"),
        ("a=b; __Host-sseflask_session=abc; c=d", "a=b; __Host-sseflask_session=***; c=d"),
        ("'HTTP_AUTHORIZATION': 'Bearer abc'", "'HTTP_AUTHORIZATION': 'Bearer ***'"),
        ("max_token=5 and token-bucket=3", "max_token=5 and token-bucket=3"),
        ("a cookie: it is kept", "a cookie: it is kept"),
        ("the token: 'code' says why", "the token: 'code' says why"),
        ("Incorrect API key provided: sk-abcd****wxyz.", None),
        ("the key is opensesame!", "the key is ***!"),
        ("the bearer of this letter", "the bearer of this letter"),
        ("risk-taking and task-switching", "risk-taking and task-switching"),
        ("none of it", "none of it"),
    ],
)
def test_mask(text: str, masked: str | None) -> None:
    result = mask(text, ["opensesame", "none"])
    if masked is not None:
        assert result == masked
    else:
        assert "***" in result
        assert "abc" not in result


@pytest.fixture
def written() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def logger(written: io.StringIO) -> logging.Logger:
    made = logging.Logger("masked")
    handler = logging.StreamHandler(written)
    handler.addFilter(MaskingFilter([KEY]))
    made.addHandler(handler)
    return made


def test_messages_and_their_arguments(logger: logging.Logger, written: io.StringIO) -> None:
    logger.warning("%s for %s", "/?access_token=abc", KEY)
    assert written.getvalue() == "/?access_token=*** for ***\n"


def test_tracebacks(logger: logging.Logger, written: io.StringIO) -> None:
    def fail() -> None:
        raise ValueError(f"refused: {KEY}")

    try:
        fail()
    except ValueError:
        logger.error("it failed", exc_info=sys.exc_info())
    assert "Traceback" in written.getvalue()
    assert "ValueError: refused: ***" in written.getvalue()
    assert KEY not in written.getvalue()


def test_a_wrong_format_string_is_shown_masked(
    logger: logging.Logger, written: io.StringIO
) -> None:
    logger.warning("%d streams", KEY)
    assert written.getvalue() == "%d streams % ('***',)\n"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("refresh_token=abc&id_token=abc", "refresh_token=***&id_token=***"),
        ("GET /?access%5Ftoken=abc", "GET /?access%5Ftoken=***"),
        ("GET /?a=b&%61ccess_tok%65n=abc&c=100%25", "GET /?a=b&%61ccess_tok%65n=***&c=100%25"),
        ("GET /?api_key=abc&apikey=abc", "GET /?api_key=***&apikey=***"),
        ('{"api_key": "abc", "a": "b"}', '{"api_key": "***", "a": "b"}'),
        ("x-api-key: abc", "x-api-key: ***"),
        ("'HTTP_X_API_KEY': 'abc'", "'HTTP_X_API_KEY': '***'"),
        ("Proxy-Authorization: Basic abc", "Proxy-Authorization: Basic ***"),
        ("Authorization: abc", "Authorization: ***"),
        ("(b'authorization', b'Bearer abc')", None),
        ("GET /?q=Bearer%20abcdefgh.abc", "GET /?q=Bearer%20***"),
        ("redis://user:abc@example.org/0", "redis://***@example.org/0"),
        ("see https://example.org/@abc", "see https://example.org/@abc"),
        (f"%22{TOKEN}%22", "%22***%22"),
        ("%22sk-abcdefgh%22", "%22sk-***%22"),
        ("opensesame%2Fabc is the key", "*** is the key"),
    ],
)
def test_other_spellings(text: str, masked: str | None) -> None:
    result = mask(text, ["opensesame/abc"])
    if masked is None:
        assert "***" in result
        assert "abc" not in result
    else:
        assert result == masked


def _seconds(text: str) -> float:
    """CPU time, as the machine may be busy; the least of some."""
    taken = []
    for _ in range(4):
        before = time.process_time()
        mask(text)
        taken.append(time.process_time() - before)
    return min(taken)


#: What each of the patterns begins with, as far as it can be repeated without a match.
PREFIXES = [
    "token", "token=", "token%3D", "token\" :", "token':'", "api_key", "api_key: ", "password=",
    "sseflask_session", "cookie", "cookie:", "cookie: a", "cookie' : '", "'cookie', b'",
    "authorization", "authorization:", "authorization: x ", "authorization='", "bearer ",
    "://", "://a:", "?%", "&%=", "eyJ", "eyJ-", "eyJa.", "sk-", "sk-a",
]  # fmt: skip
BEGINNINGS = ["", "authorization:", "authorization: x", 'token"', "cookie:", "bearer", "eyJ", "?%"]


@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_any_text_takes_linear_time(monkeypatch: pytest.MonkeyPatch, beginning: str) -> None:
    monkeypatch.setattr(masking, "LONGEST", 1 << 30)
    for repeated in [*PREFIXES, *" \t\n\"'=:;,.-_%&?/@\\!a0é"]:
        size = 4096 // len(repeated)
        for _ in range(5):  # others may have the processor meanwhile
            once, twice = (_seconds(f"{beginning}{repeated * n}!") for n in (size, 2 * size))
            # Below a millisecond it is the clock that is measured; quadratic time is 30 of them.
            if twice < max(0.004, 3 * once):
                break
        else:
            pytest.fail(f"{repeated!r} twice as often takes more than three times as long")


def test_a_long_text_is_looked_at_in_part() -> None:
    assert mask("a" * masking.LONGEST) == "a" * masking.LONGEST
    shown = mask("a" * 262_144)
    assert shown.endswith("a... (196608 more characters)")
    assert _seconds("authorization: " * 17_476) < 0.5  # 15 ms on a machine that does nothing else


FORGED = "x\n2026-11-28 [CRITICAL] forged\r\x1b[2J\x85\u2028\u202e\ud800\x7f\U000e0041\t"
ESCAPED = r"x\n2026-11-28 [CRITICAL] forged\r\u001b[2J\u0085\u2028\u202e\ud800\u007f\udb40\udc41\t"


def test_a_message_is_one_printable_line(logger: logging.Logger, written: io.StringIO) -> None:
    logger.warning("not found: %s", FORGED)
    assert written.getvalue() == f"not found: {ESCAPED}\n"


def test_a_message_is_short(logger: logging.Logger, written: io.StringIO) -> None:
    logger.warning("not found: %s", "x" * 1_000_000)
    assert len(written.getvalue()) < 5000


def test_an_exceptions_text_forges_no_line(logger: logging.Logger, written: io.StringIO) -> None:
    def fail() -> None:
        try:
            raise KeyError(FORGED)
        except KeyError as error:
            raise ValueError(FORGED) from error

    try:
        fail()
    except ValueError as error:
        error.__notes__ = [FORGED]  # type: ignore[attr-defined]  # what add_note does, from 3.11 on
        logger.exception("it failed")
    lines = written.getvalue().splitlines()
    assert [line for line in lines if line[:1].strip()] == [
        "it failed",
        "Traceback (most recent call last):",
        f"KeyError: {FORGED!r}",
        "The above exception was the direct cause of the following exception:",
        "Traceback (most recent call last):",
        f"ValueError: {ESCAPED}",
    ]
    assert "\x1b" not in written.getvalue()


def test_a_flood_of_one_kind_leaves_others_alone(
    logger: logging.Logger, written: io.StringIO
) -> None:
    for n in range(1000):
        for kind in ("Invalid request from ip=%d", "Error handling request %d"):
            logger.warning(kind, n)
            logger.info(kind, n)
    assert written.getvalue().count("\n") == 2 * (100 + 1000)


def test_what_was_left_out_is_said(
    logger: logging.Logger, written: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(masking, "time", SimpleNamespace(monotonic=lambda: now[0]))
    for n in range(150):
        now[0] += 61 * (n == 149)
        logger.warning("no %d", n)
    lines = written.getvalue().splitlines()
    assert len(lines) == 101
    assert lines[-1] == "no 149 (and 49 more like it, which were left out)"


EVIL = "access_token=abcdef\n2026-11-28 [CRITICAL] forged\x1b[2J"


def test_the_log_of_an_application_of_ones_own(written: io.StringIO) -> None:
    """Ours is made fit for it; its own is, once it says so."""
    app = Flask("somebody")
    SSE(app)

    @app.get("/late")
    def late() -> EventSourceResponse:
        def fail() -> Iterator[str]:
            yield "one"
            raise RuntimeError(EVIL)

        return EventSourceResponse(fail())

    @app.get("/early")
    def early() -> str:
        raise RuntimeError(EVIL)

    handler = logging.StreamHandler(written)
    app.logger.addHandler(handler)
    ours = logging.getLogger("sseflask")
    ours.addHandler(handler)
    client = app.test_client()
    try:
        assert b"failure" in client.get("/late").data
        lines = written.getvalue().splitlines()
        assert lines[0] == "Exception in the stream of '/late'"
        assert lines[-1] == "RuntimeError: access_token=*** [CRITICAL] forged\\u001b[2J"
        assert "abcdef" not in written.getvalue()
        assert "\x1b" not in written.getvalue()
        app.logger.addFilter(MaskingFilter())
        assert client.get("/early").status_code == 500
        assert "Exception on /early [GET]" in written.getvalue()
        assert "abcdef" not in written.getvalue()
    finally:
        app.logger.removeHandler(handler)
        ours.removeHandler(handler)


def test_a_guarded_logger_knows_the_secrets_of_all_times(written: io.StringIO) -> None:
    logger = logging.Logger("werkzeug")
    logger.addHandler(logging.StreamHandler(written))
    for secrets in (["first-secret"], ["other-secret"], []):
        guard(logger, secrets)
    assert len(logger.filters) == 1
    logger.warning(
        '"\x1b[1m\x1b[31m%s\x1b[0m" 404', "GET /?token=abc first-secret other-secret\n\x1b[2J"
    )
    assert written.getvalue() == '"GET /?token=*** *** ***\\n\\u001b[2J" 404\n'
