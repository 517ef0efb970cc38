"""Proxies, certificates and addresses of upstreams: they work, or the start says what to mend."""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

import pytest

from sseflask.config import load
from sseflask.errors import ConfigError
from sseflask.outbound import Outbound
from tests.certificates import certified
from tests.service import KEY, environment

HTTP, HTTPS = "http://model.example/v1", "https://model.example/v1"


def reach(url: str, **variables: str) -> Outbound:
    with mock.patch.dict(os.environ, variables, clear=True):
        return Outbound.from_environment(url)


def refusal(**variables: str) -> str:
    kept = {"SSL_CERT_FILE": "", "SSL_CERT_DIR": ""}
    with environment(**{**kept, **variables}), pytest.raises(ConfigError) as caught:
        load()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("url", "variables", "proxy"),
    [
        (HTTPS, {"HTTPS_PROXY": "http://p:3128"}, "http://p:3128"),
        (HTTPS, {"https_proxy": "p:3128"}, "http://p:3128"),
        (HTTPS, {"HTTPS_PROXY": " http://me:geheim@p:3128 "}, "http://me:geheim@p:3128"),
        (HTTPS, {"https_proxy": "http://low", "HTTPS_PROXY": "http://up"}, "http://low"),
        (HTTPS, {"HTTP_PROXY": "http://p"}, None),
        (HTTP, {"HTTP_PROXY": "http://p"}, "http://p"),
        (HTTP, {"HTTP_PROXY": "http://p", "REQUEST_METHOD": "GET"}, None),
        (HTTP, {"ALL_PROXY": "http://p"}, "http://p"),
        # What does not concern the upstream is not looked at.
        (HTTPS, {"ALL_PROXY": "socks5://p", "HTTPS_PROXY": "http://q"}, "http://q"),
        (HTTPS, {"ALL_PROXY": "socks5://p", "NO_PROXY": "model.example"}, None),
        (HTTP, {"HTTPS_PROXY": "nonsense://"}, None),
        (HTTP, {"SSL_CERT_FILE": "/is/not/there"}, None),
    ],
)
def test_the_way(url: str, variables: dict[str, str], proxy: str | None) -> None:
    assert reach(url, **variables) == Outbound(proxy)


@pytest.mark.parametrize(
    ("bypass", "url", "bypassed"),
    [
        ("*", HTTP, True),
        ("other, *", HTTP, True),
        ("model.example", HTTP, True),
        (" MODEL.example ", HTTP, True),
        (".example", HTTP, True),
        ("*.example", HTTP, True),
        ("example", HTTP, True),
        ("el.example", HTTP, False),
        ("a b model.example", HTTP, True),
        ("http://model.example", HTTP, True),
        ("model.example:80", HTTP, True),
        ("model.example:81", HTTP, False),
        ("10.0.0.0/8", "http://10.1.2.3/v1", True),
        ("10.0.0.0/8", "http://11.1.2.3/v1", False),
        ("::1", "http://[::1]:8000/v1", True),
        ("[::1]:8000", "http://[::1]:8000/v1", True),
        ("localhost,127.0.0.1", "http://127.0.0.1:80/v1", True),
        # Odd, and no reason to fail.
        ("[::1", HTTP, False),
        (",, ,://,:,/,[],*.", HTTP, False),
        ("999.0.0.0/99", HTTP, False),
    ],
)
def test_what_is_reached_without_a_proxy(bypass: str, url: str, bypassed: bool) -> None:
    assert reach(url, HTTP_PROXY="http://p", NO_PROXY=bypass) == Outbound(
        None if bypassed else "http://p"
    )


@pytest.mark.parametrize(
    "value",
    ["socks5://me:geheim@p:1080", "socks5h://p", "ftp://p", "http://", "http://p:port",
     "http://p:0", "http://p:99999", "http://a b", "http://[::1", "http://a..b", "://", "http://ü\x7f"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["ALL_PROXY", "https_proxy"])
def test_a_proxy_that_can_not_be_used(name: str, value: str) -> None:
    message = refusal(OPENAI_API_KEY=KEY, **{name: value})
    assert message.startswith(f"{name} is not allowed: ")
    assert "http://proxy.example:3128" in message
    assert "NO_PROXY" in message
    assert "geheim" not in message


def test_the_demo_model_needs_no_way() -> None:
    with environment(ALL_PROXY="socks5://p", SSL_CERT_FILE="/x"):
        assert load().demo


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
@pytest.mark.parametrize("kind", ["missing", "empty", "no PEM", "a directory"])
def test_certificates_that_can_not_be_used(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / "certificates"
    if kind == "a directory":
        path.mkdir()
    elif kind != "missing":
        path.write_text("" if kind == "empty" else "-----BEGIN CERTIFICATE-----\nx\n")
    message = refusal(OPENAI_API_KEY=KEY, **{name: str(path)})
    assert message.startswith(f"{name}={str(path)!r} can't be used: ")
    assert message.endswith("; unset it for the system's own certificates")


def test_certificates_that_can_be_used(tmp_path: Path) -> None:
    file = str(certified(tmp_path).authority)
    assert reach(HTTPS, SSL_CERT_FILE=file, SSL_CERT_DIR="/none") == Outbound(cafile=file)
    assert reach(HTTP, HTTP_PROXY="https://p", SSL_CERT_FILE=file) == Outbound("https://p", file)
    assert reach(HTTPS) == Outbound()


@pytest.mark.parametrize("name", ["OPENAI_ORG_ID", "OPENAI_PROJECT_ID"])
@pytest.mark.parametrize("value", ["ö", "a\nb", "a\n", " a", "\x7f"])
def test_what_fits_no_header(name: str, value: str) -> None:
    """Not even the demo model can be asked with it."""
    assert refusal(**{name: value}).startswith(f"{name} is not allowed: ")


@pytest.mark.parametrize(
    "value", ["api-key: ö-geheim", "a b: geheim", ": geheim", "X: 1\nContent-Length: 7", "x: a\rb"]
)
def test_custom_headers_that_can_not_be_sent(value: str) -> None:
    message = refusal(OPENAI_CUSTOM_HEADERS=value)
    assert message.startswith("OPENAI_CUSTOM_HEADERS is not allowed: ")
    assert "geheim" not in message


def test_custom_headers_that_are_secret() -> None:
    headers = "X-Team: research\napi-key: geheim-123\nno header\nauthorization: Bearer geheim-456\n"
    with environment(OPENAI_CUSTOM_HEADERS=headers):
        assert load().confidential == ("geheim-123", "geheim-456")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://h/v1#x", "a fragment (#...) is never sent"),
        ("http://h /v1", "not have a space or line break"),
        ("http://h/v1\n", "not have a space or line break"),
        (" http://h/v1", "not have a space or line break"),
        ("http://h:port/v1", "its port must be a number"),
        ("http://h:0/v1", "its port must be a number"),
        ("http://h:99999/v1", "its port must be a number"),
        ("http://[::1/v1", "its host is not valid"),
        ("http://a..b/v1", "its host is not valid"),
        ("http://" + "a" * 64 + ".de/v1", "its host is not valid"),
        ("http://ü\u2028.de/v1", "not have a space or line break"),
        ("unix:///v1", "it must begin with http:// or https://"),
        ("http:///v1", "it must begin with http:// or https://"),
        ("http://h/v1/chat/completions", "/chat/completions is added to it"),
        ("http://h/v1/responses/?key=geheim", "/responses is added to it"),
    ],
)
def test_an_address_that_can_not_be_used(url: str, reason: str) -> None:
    message = refusal(OPENAI_BASE_URL=url)
    assert message.startswith("OPENAI_BASE_URL=")
    assert reason in message
    assert "geheim" not in message


@pytest.mark.parametrize(
    "url",
    ["http://h", "http://h/v1/", "http://bücher.example/v1", "http://a_b/v1", "http://[::1]:8/v1",
     "https://r.example/openai/v1?api-version=2026-01-01", "HTTP://h/v1"],
)  # fmt: skip
def test_an_address_that_can_be_used(url: str) -> None:
    with environment(OPENAI_BASE_URL=url, SSL_CERT_FILE="", SSL_CERT_DIR=""):
        assert load().openai_base_url == url
