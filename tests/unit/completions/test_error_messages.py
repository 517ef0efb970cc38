from __future__ import annotations

import json
from typing import Any

import pytest

from sseflask.completions.error_messages import excerpt, reason, text_of, value_of


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("plain", "plain"),
        ({"error": "model not found"}, "model not found"),
        ({"error": {"message": "no", "code": 5}}, "no"),
        ([{"error": {"code": 400, "message": "no", "status": "INVALID_ARGUMENT"}}], "no"),
        ({"error": {"message": {"reason": "no"}}}, "no"),
        ({"error": True, "message": "no"}, "no"),
        ({"error": "invalid_grant", "error_description": "no"}, "no"),
        ({"error": "Bad Request", "message": "no", "status": 400}, "no"),
        ({"detail": "no"}, "no"),
        (
            {
                "detail": [
                    {"type": "extra_forbidden", "loc": ["body", "n"], "msg": "no", "input": 1}
                ]
            },
            "body.n: no",
        ),
        (
            {"message": {"detail": [{"msg": "a", "loc": ["body", "messages", 0]}, {"msg": "b"}]}},
            "body.messages.0: a; b",
        ),
        ({"errors": [{"code": 7003, "message": "no"}], "success": False, "messages": []}, "no"),
        ({"errors": ["a", "b"]}, "a; b"),
        ({"msg": "no"}, "no"),
        ({"error_msg": "no", "error_code": 17}, "no"),
        ({"errorMessage": "no"}, "no"),
        ({"Message": "no"}, "no"),
        ({"type": "about:blank", "title": "Not allowed", "detail": "no"}, "Not allowed: no"),
        ({"title": "Not allowed"}, "Not allowed"),
        ({"fault": {"faultstring": "no", "detail": {"errorcode": "x"}}}, "no"),
        ({"base_resp": {"status_code": 1004, "status_msg": "no"}}, "no"),
        ({"object": "error", "message": "no"}, "no"),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "no"}}, "no"),
        ({"choices": [], "status": "KO"}, ""),
        ({"message": {"role": "assistant", "content": "hi"}}, ""),
        ({"message": 5}, ""),
        ([1], ""),
        (None, ""),
    ],
    ids=lambda value: json.dumps(value)[:50],
)
def test_the_reason_in_any_shape(value: Any, expected: str) -> None:
    assert reason(value) == expected


def test_a_reason_is_bounded_whatever_it_is_in() -> None:
    deep: Any = "deep"
    for _ in range(100):
        deep = {"error": deep}
    assert reason(deep) == ""
    assert len(reason({"errors": ["x" * 100_000] * 100})) <= 16_384


@pytest.mark.parametrize(
    ("content", "kind", "expected"),
    [
        ("nö".encode(), "", "nö"),
        ("nö".encode("latin-1"), "application/json; charset=ISO-8859-1", "nö"),
        ("nö".encode("cp1252"), "", "nö"),
        ("不".encode("gb18030"), "text/plain;charset=gb18030", "不"),
        ("nö".encode("utf-16"), "", "nö"),
        (b"\xef\xbb\xbfno", "application/json", "no"),
        (b"no", 'text/html; charset="no such thing"', "no"),
        ('<meta charset="big5">不'.encode("big5"), "text/html", '<meta charset="big5">不'),
        (b"\x81x", "", "\ufffdx"),
        (b"", "", ""),
    ],
)
def test_the_text_in_any_charset(content: bytes, kind: str, expected: str) -> None:
    assert text_of(content, kind) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" a\n\n b ", "a b"),
        (
            "<html><head><title>502 Bad\nGateway</title></head><body><h1>x</h1></body></html>",
            "502 Bad Gateway",
        ),
        ("<!doctype html><style>p{}</style><h1>No</h1><p>way</p><script>x()</script>", "No way"),
        ("<p>&lt;b&gt;", "<b>"),
        ("<", ""),
        ("x" * 1000, "x" * 300 + "..."),
    ],
)
def test_an_excerpt(text: str, expected: str) -> None:
    assert excerpt(text) == expected


@pytest.mark.parametrize("text", ["<" * 100_000, "<!--" * 50_000, "<a " * 50_000, "&" * 100_000])
def test_a_page_that_is_none_takes_no_time(text: str) -> None:
    assert len(excerpt(text)) < 400


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        ('data: {"a": 1}\n\ndata: [DONE]\n\n', {"a": 1}),
        ('\r\nevent: error\r\ndata: {"a":\r\ndata: 1}\r\n\r\n', {"a": 1}),
        ("event: error", None),
        ("no", None),
    ],
)
def test_the_value_also_of_an_event(text: str, value: Any) -> None:
    assert value_of(text) == value
