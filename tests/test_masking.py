from __future__ import annotations

import io
import logging
import sys

import pytest

from sseflask.masking import MaskingFilter, mask
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
