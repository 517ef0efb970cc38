from __future__ import annotations

import logging
from pathlib import Path

import pytest

from sseflask.config import Settings, load, rows, warn_about_ineffective, warn_about_unknown
from sseflask.errors import ConfigError
from sseflask.store.names import Pattern
from tests.service import KEY, OLD_SECRET, SECRET, environment

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "configuration.md"


def settings(**variables: str) -> Settings:
    with environment(**variables):
        return load()


REDIS = "rediss://user:a-password@redis.example.org:6380/0"


def refusal(**variables: str) -> str:
    with environment(**variables), pytest.raises(ConfigError) as caught:
        load()
    return str(caught.value)


def test_defaults() -> None:
    made = settings()
    assert (made.secrets, made.trusted_proxies, made.max_body) == ((), 0, 2**20)
    assert (made.heartbeat, made.first_byte, made.lifetime) == (15, 1, 0)
    assert (made.retry, made.retry_jitter, made.grace) == (None, 2500, 25)
    assert (made.port, made.web_concurrency, made.upstream_timeout) == (None, 1, 600)
    assert made.demo


def test_every_setting_is_read() -> None:
    made = settings(
        SSEFLASK_PLATFORM="railway",
        SSEFLASK_SECRET=f"{SECRET}, {OLD_SECRET}",
        SSEFLASK_PUBLIC_CHANNELS="news, scores.*,,live.**",
        SSEFLASK_CORS_ORIGINS="https://Example.org:443, http://127.0.0.1:3000",
        SSEFLASK_PAGE="true",
        SSEFLASK_TRUSTED_PROXIES="2",
        SSEFLASK_LOG_FORMAT="json",
        SSEFLASK_HEARTBEAT="0.5",
        SSEFLASK_FIRST_BYTE="0",
        SSEFLASK_LIFETIME="600",
        SSEFLASK_GRACE="50",
        SSEFLASK_RETRY="0",
        SSEFLASK_RETRY_JITTER="10000",
        REDIS_URL=REDIS,
        SSEFLASK_CHANNEL_LOG="/var/lib/sse/channels.sqlite3",
        SSEFLASK_CHANNEL_LOG_BYTES="1048576",
        SSEFLASK_HISTORY_EVENTS="50",
        SSEFLASK_HISTORY_SECONDS="3600",
        SSEFLASK_RUN_LOG="/var/lib/sse/runs.sqlite3",
        SSEFLASK_RUN_SECONDS="60",
        SSEFLASK_RUN_LOG_BYTES="2000000",
        SSEFLASK_MAX_RUN_BYTES="2048",
        SSEFLASK_MAX_RUN_SECONDS="90",
        SSEFLASK_MAX_RUNS="7",
        SSEFLASK_RATE_LIMIT="10/hour",
        SSEFLASK_PUBLISH_RATE_LIMIT="10/second",
        SSEFLASK_MAX_PROMPT="5000",
        SSEFLASK_MAX_EVENT="70000",
        SSEFLASK_MAX_BODY="2048",
        SSEFLASK_MODEL="a-model",
        SSEFLASK_UPSTREAM_TIMEOUT="30",
        PORT="5000",
        WEB_CONCURRENCY="3",
        OPENAI_API_KEY=KEY,
        OPENAI_BASE_URL="https://example.org/v1",
    )
    assert made.secrets == (SECRET, OLD_SECRET)
    assert made.confidential == (SECRET, OLD_SECRET, KEY, "a-password")
    assert made.store == REDIS
    assert made.of_library()["SSEFLASK_STORE"] == REDIS
    assert made.model_dump(exclude={"secret", "openai_api_key", "redis_url"}) == {
        "platform": "railway",
        "public_channels": ("news", "scores.*", "live.**"),
        "cors_origins": ("https://example.org", "http://127.0.0.1:3000"),
        "page": True,
        "trusted_proxies": 2,
        "log_format": "json",
        "heartbeat": 0.5,
        "first_byte": 0,
        "lifetime": 600,
        "grace": 50,
        "retry": 0,
        "retry_jitter": 10_000,
        "channel_log": "/var/lib/sse/channels.sqlite3",
        "channel_log_bytes": 1_048_576,
        "history_events": 50,
        "history_seconds": 3600,
        "run_log": "/var/lib/sse/runs.sqlite3",
        "run_seconds": 60,
        "max_runs": 7,
        "run_log_bytes": 2000000,
        "max_run_bytes": 2048,
        "max_run_seconds": 90,
        "rate_limit": "10/hour",
        "publish_rate_limit": "10/second",
        "max_prompt": 5000,
        "max_event": 70000,
        "max_body": 2048,
        "model": "a-model",
        "upstream_timeout": 30,
        "port": 5000,
        "web_concurrency": 3,
        "openai_base_url": "https://example.org/v1",
    }
    assert not made.demo


def test_empty_is_unset() -> None:
    assert settings(**{row.name: "" for row in rows()}) == settings()


@pytest.mark.parametrize("variable", ["OPENAI_API_KEY", "OPENAI_BASE_URL"])
def test_either_of_key_and_url_replaces_the_demo(variable: str) -> None:
    assert not settings(**{variable: "http://127.0.0.1:1/v1"}).demo


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("SSEFLASK_PUBLIC_CHANNELS", "or*ders", "comma-separated channel names and patterns"),
        ("SSEFLASK_PUBLIC_CHANNELS", "news,**.x", "comma-separated channel names and patterns"),
        ("SSEFLASK_PUBLIC_CHANNELS", "two words", "comma-separated channel names and patterns"),
        ("SSEFLASK_CORS_ORIGINS", "example.org", "comma-separated origins"),
        ("SSEFLASK_CORS_ORIGINS", "https://example.org/", "comma-separated origins"),
        ("SSEFLASK_CORS_ORIGINS", "https://*.example.org", "comma-separated origins"),
        ("SSEFLASK_CORS_ORIGINS", "https://example.org:0", "comma-separated origins"),
        ("SSEFLASK_CORS_ORIGINS", "*,https://example.org", "or * for all"),
        ("SSEFLASK_CORS_ORIGINS", "null", "comma-separated origins"),
        ("SSEFLASK_TRUSTED_PROXIES", "-1", "0 to 10"),
        ("SSEFLASK_TRUSTED_PROXIES", "yes", "0 to 10"),
        ("SSEFLASK_HEARTBEAT", "0", "0.1 to 3600"),
        ("SSEFLASK_HEARTBEAT", "nan", "0.1 to 3600"),
        ("SSEFLASK_HEARTBEAT", "15s", "0.1 to 3600"),
        ("SSEFLASK_FIRST_BYTE", "61", "0 to 60"),
        ("SSEFLASK_LIFETIME", "inf", "0 to 604800"),
        ("SSEFLASK_PLATFORM", "heroko", "heroku, render, fly, cloud_run, railway, none"),
        ("SSEFLASK_GRACE", "0", "1 to 3600"),
        ("SSEFLASK_GRACE", "2.5", "1 to 3600"),
        ("SSEFLASK_MAX_BODY", "1MB", "1024 to 1073741824"),
        ("SSEFLASK_MODEL", "m" * 257, "1 to 256 characters"),
        ("SSEFLASK_UPSTREAM_TIMEOUT", "0", "above 0, to 86400"),
        ("PORT", "http", "1 to 65535"),
        ("PORT", "65536", "1 to 65535"),
        ("WEB_CONCURRENCY", "0", "1 to 1024"),
        ("OPENAI_BASE_URL", "127.0.0.1:8080", "http:// or https://"),
        ("OPENAI_BASE_URL", "ftp://example.org", "http:// or https://"),
    ],
)
def test_a_bad_value_is_refused_in_one_line(name: str, value: str, allowed: str) -> None:
    message = refusal(**{name: value})
    assert message.startswith(f"{name}={value[:70]!r}"[:70])
    assert allowed in message.partition("(allowed: ")[2]
    assert "\n" not in message
    assert len(message) < 400


@pytest.mark.parametrize("value", ["short", f"{SECRET},short", f"short,{SECRET}"])
def test_a_short_secret_is_refused_and_not_shown(value: str) -> None:
    message = refusal(SSEFLASK_SECRET=value)
    assert message.startswith("SSEFLASK_SECRET is not allowed: each secret needs at least 32 bytes")
    assert value not in message
    assert SECRET not in message
    assert "\n" not in message


def test_a_secret_is_measured_in_bytes() -> None:
    assert settings(SSEFLASK_SECRET="ключ" * 4).secrets == ("ключ" * 4,)


@pytest.mark.parametrize("key", ["two\nlines", " padded", "schlüssel"])
def test_a_key_that_fits_no_header_is_refused_and_not_shown(key: str) -> None:
    message = refusal(OPENAI_API_KEY=key)
    assert message.startswith("OPENAI_API_KEY is not allowed:")
    assert key not in message


@pytest.mark.parametrize("name", ["OPENAI_BASE_URL", "SSEFLASK_CORS_ORIGINS"])
def test_a_password_in_an_address_is_refused_and_not_shown(name: str) -> None:
    message = refusal(**{name: "https://me:geheim@example.org/v1"})
    assert message.startswith(f"{name}='https://***@example.org/v1' is not allowed")
    assert "geheim" not in message


def test_all_origins() -> None:
    assert settings(SSEFLASK_CORS_ORIGINS=" * ").cors_origins == ("*",)


def test_public_channels_are_patterns() -> None:
    made = settings(SSEFLASK_PUBLIC_CHANNELS="news,scores.*")
    assert made.public_patterns == (Pattern.parse("news"), Pattern.parse("scores.*"))
    assert settings().public_patterns == ()


def test_secrets_are_in_no_representation() -> None:
    made = settings(SSEFLASK_SECRET=SECRET, OPENAI_API_KEY=KEY)
    shown = f"{made!r} {made} {made.model_dump()} {made.model_dump_json()}"
    assert SECRET not in shown
    assert KEY not in shown


def test_an_unknown_name_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    with environment(SSEFLASK_HEARTBEATS="3", SSEFLASK_SECRET=SECRET, HOSTNAME="x"):
        warn_about_unknown()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert caplog.messages == [
        "SSEFLASK_HEARTBEATS is not a setting and is ignored; did you mean SSEFLASK_HEARTBEAT?"
    ]


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, []),
        ({"REDIS_URL": ""}, []),
        ({"REDIS_URL": "redis://user:secret@host"}, []),
        (
            {"REDIS_URL": "redis://user:secret@host", "SSEFLASK_RUN_LOG": "/var/lib/runs.sqlite3"},
            ["REDIS_URL"],
        ),
        ({"SSEFLASK_CHANNEL_LOG": ":memory:"}, []),
        (
            {
                "SSEFLASK_CHANNEL_LOG": ":memory:",
                "SSEFLASK_RUN_LOG": ":memory:",
                "WEB_CONCURRENCY": "2",
            },
            ["SSEFLASK_CHANNEL_LOG", "SSEFLASK_RUN_LOG"],
        ),
    ],
)
def test_what_does_not_do_what_it_is_set_for(
    variables: dict[str, str], said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with environment(**variables):
        warn_about_ineffective(load())
    assert [record.getMessage().split()[0] for record in caplog.records] == said
    assert "secret" not in caplog.text


def test_every_setting_is_documented_with_its_default() -> None:
    table = [
        tuple(cell.strip() for cell in line.strip("|").split("|"))
        for line in DOCUMENTATION.read_text(encoding="utf-8").splitlines()
        if line.startswith("| `")
    ]
    assert table == [
        (f"`{row.name}`", f"`{row.default}`" if row.default else "unset", row.meaning)
        for row in rows()
    ]
    # An error quotes what is allowed from the end of the meaning, but for secrets.
    others = [row.name for row in rows() if not row.meaning.endswith(").")]
    assert others == ["SSEFLASK_SECRET", "OPENAI_API_KEY"]
