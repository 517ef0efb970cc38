"""What a client gets when the upstream fails, in OpenAI's shape, and the upstream's headers.

Without secrets.
"""

from __future__ import annotations

import json
import logging
import math
import re
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx2

from sseflask.completions.chunked import BrokenChunks
from sseflask.completions.error_messages import excerpt, reason, text_of, value_of
from sseflask.completions.json_values import dict_or_empty
from sseflask.errors import SHOULD_RETRY, Failure
from sseflask.logs.masking import mask
from sseflask.runs.outcome import ReportedFailure

log = logging.getLogger(__name__)

#: The extension of a response that redirects: its Location.
LOCATION = "sseflask.location"

_TYPES = {403: "permission_error", 429: "rate_limit_error"}

#: Characters of a message, and of a message in the log.
_MAX_MESSAGE, _MAX_LOGGED = 4_000, 1_000
#: Characters of an error with all its fields.
_MAX_ERROR = 16_384
#: Characters of a body that is no JSON: more than an excerpt has, so that no key is cut in half.
_MAX_TEXT = 8_192
#: Characters of a header's value, and headers of one response.
_MAX_VALUE, _MAX_HEADERS = 200, 40

#: OpenAI's and its imitators' x-ratelimit-*, Anthropic's, and those of the IETF's draft.
_RATES = re.compile(r"(?:x-|x-ms-|anthropic-)?rate-?limit(?:-[a-z0-9-]{1,60})?")
_IDS = re.compile(r"(?:x-|x-ms-|apim-|x-amzn-)?request-?id")
#: Whether and when to ask again, as OpenAI's clients read it: of refusals only.
_RETRIES = ("retry-after", "retry-after-ms", "x-should-retry")

#: Statuses of errors that come inside a 200: by their ``code``, ``type`` or ``status``.
_STATUSES = {
    name: status
    for status, names in {
        400: "badrequesterror bad_request content_filter content_policy_violation "
        "context_length_exceeded invalid_argument invalid_prompt invalid_request_error "
        "unsupported_parameter validation_error",
        401: "invalid_api_key authentication_error unauthenticated unauthorized",
        402: "billing_error insufficient_balance",
        403: "permission_denied permission_error",
        404: "model_not_found not_found not_found_error notfounderror",
        413: "request_too_large",
        429: "insufficient_quota quota_exceeded rate_limit_exceeded rate_limit_error "
        "rate_limit_reached rate_limited resource_exhausted too_many_requests toomanyrequests",
        503: "overloaded overloaded_error server_is_overloaded service_unavailable unavailable",
    }.items()
    for name in names.split()
}


def unreachable(error: Exception, secrets: tuple[str, ...]) -> Failure:
    """The failure of a request that got no response."""
    cause = error.__cause__ or error
    # A key with a line end is no header, and the error says which.
    words = mask(str(cause), secrets)
    log.warning("the upstream can't be reached: %s: %r", type(cause).__name__, words)
    message = "The upstream can't be reached; please try again later."
    return Failure(message, status=502, code="upstream_unreachable")


def while_reading(error: httpx2.HTTPError) -> Failure:
    """The failure of a stream whose connection failed."""
    if isinstance(error, httpx2.TimeoutException):
        return timed_out()
    log.warning("the upstream's connection failed: %s: %r", type(error).__name__, str(error)[:200])
    if isinstance(error, (httpx2.DecodingError, BrokenChunks)):
        what = "decompressed" if isinstance(error, httpx2.DecodingError) else "read"
        message = f"The upstream's answer can't be {what}: {str(error)[:200]}."
        return Failure(message, status=502, code="upstream_invalid")
    return broken_off()


def broken_off() -> Failure:
    """The failure of a stream that ended without saying that the answer is complete."""
    message = "The upstream ended its stream before the answer was complete."
    return Failure(message, status=502, code="upstream_truncated")


def timed_out() -> Failure:
    """The failure of an upstream that was silent beyond the limit."""
    log.warning("the upstream was silent for too long")
    message = "The upstream was silent for too long; please try again later."
    return Failure(message, status=504, code="upstream_timeout")


def masked(value: Any, secrets: tuple[str, ...], depth: int = 20) -> Any:
    """A value of JSON without secrets, NaN and infinities; what is nested deeper is left out."""
    if isinstance(value, str):
        return mask(value, secrets)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if depth == 0:
        return None if isinstance(value, (dict, list)) else value
    if isinstance(value, dict):
        return {
            mask(str(name), secrets): masked(inner, secrets, depth - 1)
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [masked(inner, secrets, depth - 1) for inner in value]
    return value


def refused(response: httpx2.Response, content: bytes, secrets: tuple[str, ...]) -> Failure:
    """The failure of a request with another status than 200; ``content`` begins its body."""
    status = response.status_code
    if LOCATION in response.extensions:
        return _redirected(response, secrets)
    text = text_of(content, response.headers.get("Content-Type", ""))
    phrase = mask(response.reason_phrase[:100], secrets)
    fallback = f"The upstream failed with status {status}{f' ({phrase})' if phrase else ''}"
    error = _shaped(value_of(text), text, status, fallback, secrets)
    log.warning("the upstream answered %d: %r", status, error["message"][:_MAX_LOGGED])
    headers = relayed_headers(response.headers, secrets, refusal=True)
    if status == 409:
        headers.setdefault(SHOULD_RETRY, "true")  # as OpenAI's clients take it
    return _failure(status, error, headers)


def about_usage(failure: Failure) -> bool:
    """Whether a refusal is about the parameter that asks for the usage."""
    error = failure.json().lower().replace(" ", "_")
    return "stream_options" in error or "include_usage" in error


def reported(value: Any, secrets: tuple[str, ...]) -> ReportedFailure:
    """The failure that an upstream reports inside a response with status 200.

    The value is the error, or an object that has one.
    """
    status = _status_of(value)
    error = _shaped(value, _as_text(value), status, "The upstream failed", secrets)
    log.warning("the upstream sent an error: %r", error["message"][:_MAX_LOGGED])
    return _failure(status, error, {})


def invalid(what: str, text: str, secrets: tuple[str, ...]) -> Failure:
    """The failure of a response that can't be relayed: what is wrong, and the text at fault."""
    words = excerpt(mask(text[:_MAX_TEXT], secrets))
    message = f"The upstream's answer can't be relayed: {what}" + (f": {words}" if words else ".")
    log.warning("the upstream's answer can't be relayed: %s: %r", what, words)
    return Failure(message, status=502, code="upstream_invalid")


def relayed_headers(
    headers: httpx2.Headers, secrets: tuple[str, ...], *, refusal: bool = False
) -> dict[str, str]:
    """The headers of an upstream that clients get as well, by their names in one spelling.

    Users of SDKs pace themselves by its rates, and quote its request ids. All others stay here:
    cookies, its organisation, what is behind it, its connection, and every header with a secret.
    """
    relayed: dict[str, str] = {}
    for name, value in headers.items():
        name = name.lower()
        if (
            (_RATES.fullmatch(name) or _IDS.fullmatch(name) or (refusal and name in _RETRIES))
            and value.isascii()
            and value.isprintable()
            and len(value) <= _MAX_VALUE
            and mask(value, secrets) == value
            and len(relayed) < _MAX_HEADERS
        ):
            relayed["-".join(map(str.capitalize, name.split("-")))] = value
    return relayed


def _redirected(response: httpx2.Response, secrets: tuple[str, ...]) -> Failure:
    try:
        # It may be relative, and a query may hold a key.
        target = urlsplit(urljoin(str(response.request.url), response.extensions[LOCATION]))
        host = target.netloc.rpartition("@")[2]
        where = mask(f"{target.scheme}://{host}{target.path}"[:500], secrets)
    except ValueError:
        where = ""
    where = f" to {where}" if where.isprintable() and where else ""
    log.warning("the upstream answered %d, redirecting%s", response.status_code, where)
    return Failure(
        f"The upstream redirects (status {response.status_code}){where}, which is not followed: "
        "set OPENAI_BASE_URL to the address that answers itself.",
        status=502,
        code="upstream_redirected",
        headers={SHOULD_RETRY: "false"},
    )


def _failure(status: int, error: dict[str, Any], headers: dict[str, str]) -> ReportedFailure:
    if status in (401, 407):
        # It is about our key. Passed on, the client would take its own token for a bad one.
        whose = "key (OPENAI_API_KEY)" if status == 401 else "way through the proxy"
        error = {
            "message": f"The upstream refused this server's {whose}: {error['message']}",
            "type": "server_error",
            "param": None,
            "code": "upstream_unauthorized",
        }
        return ReportedFailure(502, error, {SHOULD_RETRY: "false"})
    return ReportedFailure(status if 400 <= status < 600 else 502, error, headers)


def _status_of(value: Any) -> int:
    """The status of an error that came inside a 200, by its fields; 502 if they say nothing."""
    for each in (_error_in(value), dict_or_empty(value)):
        for name in ("status", "status_code", "http_status", "statusCode", "code", "type"):
            given = each.get(name)
            if isinstance(given, str):
                known = _STATUSES.get(given.lower())
                if known:
                    return known
                given = int(given) if given.isdecimal() and len(given) == 3 else None
            if isinstance(given, int) and 400 <= given < 600:
                return given
    return 502


def _error_in(value: Any) -> dict[str, Any]:
    """The object that describes an error, inside whatever is around it."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    outer = dict_or_empty(value)
    error = outer.get("error")
    return error if isinstance(error, dict) else outer


def _shaped(
    value: Any, text: str, status: int, fallback: str, secrets: tuple[str, ...]
) -> dict[str, Any]:
    """An error object with OpenAI's four fields, made from whatever the upstream sent."""
    given = _error_in(value)
    message = mask(reason(value), secrets)
    if not message:
        words = excerpt(mask(text[:_MAX_TEXT], secrets))
        message = f"{fallback}: {words}" if words else f"{fallback}."
    if len(message) > _MAX_MESSAGE:
        message = f"{message[:_MAX_MESSAGE]}..."
    further: dict[str, Any] = {}
    # An object of OpenAI's shape keeps its further fields, within limits.
    if isinstance(given.get("message"), str) and len(_as_text(given)) <= _MAX_ERROR:
        further = masked(given, secrets)
    kind = further.get("type", _scalar(given.get("type"), secrets))
    if not isinstance(kind, str) or not kind or kind == "error":
        kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {
        **further,
        "message": message,
        "type": kind,
        "param": _scalar(given.get("param"), secrets),
        "code": _scalar(given.get("code"), secrets),
    }


def _scalar(value: Any, secrets: tuple[str, ...]) -> Any:
    if isinstance(value, str):
        return mask(value[:_MAX_MESSAGE], secrets)
    return masked(value, secrets) if isinstance(value, (int, float)) else None


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False)
    except (ValueError, RecursionError):
        return ""
