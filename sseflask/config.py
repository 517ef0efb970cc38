"""The service's settings: one table, read from the environment alone."""

from __future__ import annotations

import difflib
import logging
import os
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from sseflask import platforms
from sseflask.defaults import ADDRESS, GRACE, LIBRARY, MEMORY
from sseflask.errors import ConfigError
from sseflask.event import MOST_JITTER, MOST_RETRY
from sseflask.outbound import Outbound, check_headers, secret_headers
from sseflask.setting_types import (
    SECRET_BYTES,
    Key,
    Origins,
    Patterns,
    RateLimit,
    RedisURL,
    Secrets,
    WebAddress,
)
from sseflask.store.names import Pattern

log = logging.getLogger(__name__)

PREFIX = "SSEFLASK_"
MEBIBYTE = 1 << 20

#: Variables of the commands that are clients of a service: its address, and a token.
CLIENT_NAMES = ("SSEFLASK_URL", "SSEFLASK_TOKEN")


class Row(NamedTuple):
    """One line of the table of settings, as the documentation prints it."""

    name: str
    default: str
    meaning: str


def _number(
    default: float | None,
    bounds: tuple[float, int],
    meaning: str,
    validation_alias: str | None = None,
) -> Any:
    """The field of a number; its description ends with the bounds."""
    least, most = bounds
    return Field(
        default=default,
        ge=least,
        le=most,
        validation_alias=validation_alias,
        description=f"{meaning} ({least} to {most}).",
    )


class Settings(BaseSettings):
    """Everything an operator can set. Made by `load`; frozen; its repr shows no secret.

    The fields are the table in the documentation, in this order. Each description but those of
    secrets ends with what is allowed, in parentheses: an error quotes it.
    """

    model_config = SettingsConfigDict(
        # The names in the environment; fields that platforms set have their own.
        alias_generator=lambda name: PREFIX + name.upper(),
        env_ignore_empty=True,
        case_sensitive=True,
        allow_inf_nan=False,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  # pydantic's interface
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the platform's settings, which `load` passes."""
        return env_settings, init_settings

    platform: str | None = Field(
        default=None,
        description="The platform whose limits the defaults of SSEFLASK_HEARTBEAT, "
        "SSEFLASK_LIFETIME, SSEFLASK_GRACE and SSEFLASK_TRUSTED_PROXIES fit; unset is the platform "
        f"whose own variables are set, if any ({', '.join(platforms.NAMES)}; or "
        f"{platforms.NONE}).",
    )
    secret: Secrets = Field(
        default=(),
        description="Signs and checks tokens. Several are comma-separated, newest first: the first "
        f"signs, all of them check. At least {SECRET_BYTES} bytes each. Without one, routes "
        "that need a token answer 401.",
    )
    public_channels: Patterns = Field(
        default=(),
        description="What everybody may subscribe to without a token; publishing always needs one "
        "(comma-separated channel names and patterns, as in news,scores.*).",
    )
    cors_origins: Origins = Field(
        default=(),
        description="Origins whose pages may use the event routes from a browser, with a token of "
        "their own or if none is needed, never with the cookie (comma-separated origins, as in "
        "https://example.org,http://127.0.0.1:3000, or * for all).",
    )
    page: bool = Field(
        default=False,
        description="Whether / shows the page on which to try the service also outside development "
        "mode; what needs a token needs one there too (true or false).",
    )
    trusted_proxies: int = _number(
        0,
        (0, 10),
        "The number of your own reverse proxies in front of the service: the client's address and "
        "scheme are taken from that many entries of X-Forwarded-For and X-Forwarded-Proto",
    )
    log_format: Literal["text", "json"] = Field(
        default="text",
        description="The format of the log: text, or one JSON object a line, then with a line for "
        "the begin and the end of each stream too (text or json).",
    )
    heartbeat: float = _number(
        LIBRARY["SSEFLASK_HEARTBEAT"],
        (0.1, 3600),
        "Seconds of silence after which a stream sends a comment line, so that no proxy closes it",
    )
    first_byte: float = _number(
        LIBRARY["SSEFLASK_FIRST_BYTE"],
        (0, 60),
        "Seconds that the response's headers wait for the first event, so that an early failure is "
        "a proper HTTP error",
    )
    lifetime: float = _number(
        LIBRARY["SSEFLASK_LIFETIME"],
        (0, 604_800),
        "Seconds after which a stream that its client can resume is ended, to be resumed on a "
        "fresh connection; 0 is never",
    )
    grace: int = _number(
        GRACE,
        (1, 3600),
        "Seconds that streams and requests have to end after SIGTERM, before they are cut; less "
        "than the time after which SIGKILL comes",
    )
    retry: int | None = _number(
        LIBRARY["SSEFLASK_RETRY"],
        (0, MOST_RETRY),
        "Milliseconds that clients wait before they reconnect, sent at the start of each stream; "
        "the retry of an event replaces it. Unset sends nothing: events and clients decide",
    )
    retry_jitter: int = _number(
        LIBRARY["SSEFLASK_RETRY_JITTER"],
        (0, MOST_JITTER),
        "Milliseconds over which the clients of a worker that shuts down come back, the first of "
        "them after 500",
    )
    redis_url: RedisURL | None = Field(
        default=None,
        validation_alias="REDIS_URL",
        description="Set by platforms: the Redis or Valkey server that keeps channels and "
        "completions, and counts requests, for all machines together; unset is files of this "
        "machine (redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://; "
        "?prefix=name parts applications that share a server).",
    )
    channel_log: str | None = Field(
        default=LIBRARY["SSEFLASK_CHANNEL_LOG"],
        description="The SQLite file of the channels, shared by all workers of the machine; on a "
        "local disk, never on a network file system; unset is the server of REDIS_URL, else "
        f"channels.sqlite3 in the instance folder (a path, or {MEMORY} for one worker alone).",
    )
    history_events: int = _number(
        LIBRARY["SSEFLASK_HISTORY_EVENTS"],
        (1, 10_000_000),
        "The number of events of each channel that are stored at least, unless they grow too old",
    )
    history_seconds: float = _number(
        LIBRARY["SSEFLASK_HISTORY_SECONDS"],
        (1, 31_536_000),
        "Seconds after which events are deleted",
    )
    channel_log_bytes: int = _number(
        LIBRARY["SSEFLASK_CHANNEL_LOG_BYTES"],
        (MEBIBYTE, 1 << 50),
        "The largest size of the channels' file, for all workers: to stay below it the oldest "
        "events are deleted, whatever SSEFLASK_HISTORY_EVENTS and SSEFLASK_HISTORY_SECONDS say; "
        "a Redis server has its maxmemory instead",
    )
    run_log: str | None = Field(
        default=LIBRARY["SSEFLASK_RUN_LOG"],
        description="The SQLite file of the completions, shared by all workers of the machine; on "
        "a local disk, never on a network file system; unset is the server of REDIS_URL, else "
        f"runs.sqlite3 in the instance folder (a path, or {MEMORY} for one worker alone).",
    )
    run_seconds: float = _number(
        LIBRARY["SSEFLASK_RUN_SECONDS"],
        (0, 31_536_000),
        "Seconds for which a completion can be read after its end, and its Idempotency-Key is "
        "known",
    )
    run_log_bytes: int = _number(
        LIBRARY["SSEFLASK_RUN_LOG_BYTES"],
        (MEBIBYTE, 1 << 50),
        "The largest size of the completions' store, for all workers: to stay below it those that "
        "ended first are deleted, whatever SSEFLASK_RUN_SECONDS says; if that is not enough, the "
        "largest running one fails",
    )
    max_runs: int = _number(
        LIBRARY["SSEFLASK_MAX_RUNS"],
        (1, 1_000_000),
        "How many completions of one subject may run at the same time; one more gets 429. With the "
        "demo model an address counts as a subject",
    )
    rate_limit: RateLimit = Field(
        default="600/minute",
        description="How often one subject may begin a completion, counted by each worker for "
        "itself unless REDIS_URL is set; beyond it comes 429. With the demo model an address "
        "counts as a subject (a number per second, minute, hour or day, as in 10/minute; or off).",
    )
    publish_rate_limit: RateLimit = Field(
        default="60000/minute",
        description="How often one subject may publish, however many events a request has, counted "
        "by each worker for itself unless REDIS_URL is set; beyond it comes 429 (a number per "
        "second, minute, hour or day, "
        "as in 10/second; or off).",
    )
    max_run_bytes: int = _number(
        LIBRARY["SSEFLASK_MAX_RUN_BYTES"],
        (1024, 1 << 40),
        "How many bytes of one completion are stored, and at most a quarter of "
        "SSEFLASK_RUN_LOG_BYTES; one with more fails, and its upstream request is closed",
    )
    max_run_seconds: float = _number(
        LIBRARY["SSEFLASK_MAX_RUN_SECONDS"],
        (1, 604_800),
        "Seconds that a completion may run; one that takes longer fails, and its upstream request "
        "is closed",
    )
    max_prompt: int = _number(
        32 * MEBIBYTE,
        (1, 1 << 30),
        "Largest prompt in bytes, its messages as JSON, or the body of a /v1 request; a longer one "
        "gets 413. With the demo model, which anybody may use, 262144 at most",
    )
    max_event: int = _number(
        32 * MEBIBYTE,
        (65_536, 1 << 30),
        "Largest event of an upstream's stream in bytes, such as an image in one piece; with a "
        "longer one a completion fails as upstream_invalid",
    )
    max_body: int = _number(
        MEBIBYTE,
        (1024, 1 << 30),
        "Largest request body in bytes; a longer one gets 413. JSON that asks for completions may "
        "have SSEFLASK_MAX_PROMPT more",
    )
    model: str = Field(
        default="gpt-5-mini",
        max_length=256,
        description="The model of a completion whose request names none (1 to 256 characters).",
    )
    upstream_timeout: float = Field(
        default=600,
        gt=0,
        le=86_400,
        description="Seconds of silence from the upstream after which a completion fails with "
        "504, or in band once the stream has begun (above 0, to 86400).",
    )
    port: int | None = _number(
        None,
        (1, 65_535),
        "Set by platforms: the TCP port to listen on, then on all IPv4 addresses; unset is "
        f"{ADDRESS}",
        validation_alias="PORT",
    )
    web_concurrency: int = _number(
        1,
        (1, 1024),
        "Set by platforms: the number of worker processes",
        validation_alias="WEB_CONCURRENCY",
    )
    openai_api_key: Key | None = Field(
        default=None,
        validation_alias="OPENAI_API_KEY",
        description="The key of the upstream. With neither a key nor a base URL the built-in "
        "demo model answers.",
    )
    openai_base_url: WebAddress | None = Field(
        default=None,
        validation_alias="OPENAI_BASE_URL",
        description="The URL of any OpenAI-compatible server, including its version path "
        "(http://127.0.0.1:8080/v1), and a query if each request needs one "
        "(?api-version=...); unset is OpenAI's own, if a key is set "
        "(http:// or https://, without a user name or password).",
    )

    @property
    def secrets(self) -> tuple[str, ...]:
        """The signing secrets in plain text, newest first."""
        return tuple(secret.get_secret_value() for secret in self.secret)

    @property
    def public_patterns(self) -> tuple[Pattern, ...]:
        """The channels that everybody may subscribe to."""
        return tuple(Pattern.parse(text) for text in self.public_channels)

    @property
    def confidential(self) -> tuple[str, ...]:
        """Every value that must not appear in a log, an error or a response."""
        key = self.openai_api_key
        return (
            *self.secrets,
            *((key.get_secret_value(),) if key else ()),
            *((urlsplit(self.store).password or "",) if self.store else ()),
            *secret_headers(),
        )

    @property
    def store(self) -> str | None:
        """The URL of the server that keeps everything, with its password; ``None``: files do."""
        return None if self.redis_url is None else self.redis_url.get_secret_value()

    def of_library(self) -> dict[str, Any]:
        """The settings that the library reads from ``app.config``, by their names there."""
        return {name: getattr(self, name.removeprefix(PREFIX).lower()) for name in LIBRARY}

    @property
    def upstream_url(self) -> str:
        """The base URL of the upstream with its query; meaningless for the demo model."""
        return self.openai_base_url or "https://api.openai.com/v1"

    @property
    def demo(self) -> bool:
        """Whether there is no upstream, and the built-in demo model answers."""
        return self.openai_api_key is None and self.openai_base_url is None


def _variables() -> dict[str, FieldInfo]:
    return {str(field.validation_alias): field for field in Settings.model_fields.values()}


def rows() -> list[Row]:
    """The table of settings: name, default as in the environment, meaning with its unit."""
    table = []
    for name, field in _variables().items():
        default = "" if field.default in (None, ()) else str(field.default)
        default = default.lower() if isinstance(field.default, bool) else default
        table.append(Row(name, default, field.description or ""))
    return table


def load() -> Settings:
    """Read the settings from the environment; an empty value counts as unset.

    An unset one gets the value that fits the platform, if that is known, or else its default. If
    there is an upstream, the variables of proxies and certificates are checked too.

    Raises:
        ConfigError: one line with the variable, its value (never a secret's) and what is
            allowed, for the first value that is not allowed.
    """
    platform = platforms.detect(os.environ)
    fitting: dict[str, Any] = platforms.settings_for(platform) if platform else {}
    try:
        settings = Settings(**fitting)
    except ValidationError as error:
        # "from None": the chained error has the environment, secrets included.
        raise ConfigError(_one_line(error)) from None
    check_headers()
    if not settings.demo:
        Outbound.from_environment(settings.upstream_url)
    return settings


def unknown_names() -> dict[str, str]:
    """The ``SSEFLASK_*`` variables that are not settings, and the closest setting of each."""
    known = _variables()
    ours = (name for name in sorted(os.environ) if name.startswith(PREFIX))
    return {
        name: difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
        for name in ours
        if name not in known and name not in CLIENT_NAMES
    }


def warn_about_unknown() -> None:
    """Log a warning for each of `unknown_names`."""
    for name, closest in unknown_names().items():
        log.warning("%s is not a setting and is ignored; did you mean %s?", name, closest)


def warn_about_ineffective(settings: Settings) -> None:
    """Log a warning for settings that have no effect, or not the intended one."""
    if settings.store is not None:
        for name, path, what in (
            ("CHANNEL", settings.channel_log, "channels"),
            ("RUN", settings.run_log, "completions"),
        ):
            if path is not None:
                log.warning(
                    "REDIS_URL is not used for %s, as %s%s_LOG is set: other machines do not see "
                    "them.",
                    what,
                    PREFIX,
                    name,
                )
    for message in memory_warnings(settings, settings.web_concurrency):
        log.warning("%s", message)


def memory_warnings(settings: Settings, workers: int) -> list[str]:
    """Warnings about stores in memory if there are several workers."""
    logs = (("CHANNEL", settings.channel_log), ("RUN", settings.run_log))
    return [
        f"{PREFIX}{name}_LOG is {MEMORY}, which each of the {workers} workers has for itself: set "
        "it to a file, or start one worker."
        for name, path in logs
        if path == MEMORY and workers > 1
    ]


def _one_line(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_context=False)[0]
    name = str(problem["loc"][0])
    field = _variables()[name]
    reason = problem["msg"].removeprefix("Value error, ")
    reason = reason[:1].lower() + reason[1:]
    if field.annotation is not None and "SecretStr" in str(field.annotation):
        return f"{name} is not allowed: {reason}"
    allowed = (field.description or "").rpartition("(")[2].partition(")")[0]
    value = os.environ.get(name, "")
    if "@" in value:
        # There may be a password in an address.
        value = value[: value.find("//") + 2] + "***" + value[value.rfind("@") :]
    if name == "OPENAI_BASE_URL" and "?" in value:
        # There may be a key in a query.
        value = value[: value.find("?") + 1] + "***"
    if len(value) > 80:
        value = value[:77] + "..."
    return f"{name}={value!r} is not allowed: {reason} (allowed: {allowed})"
