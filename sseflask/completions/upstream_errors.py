"""What an upstream says when it refuses or fails, as a client is told it: masked."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx2

from sseflask.completions.error_messages import excerpt, reason, text_of, value_of
from sseflask.completions.failures import UpstreamFailure, masked
from sseflask.completions.upstream_headers import relayed_headers
from sseflask.errors import Failure
from sseflask.logs.masking import mask
from sseflask.web.retries import SHOULD_RETRY

__all__ = ["LOCATION", "refused", "reported", "unfit"]

log = logging.getLogger(__name__)

#: The extension of a response that says where it redirects to.
LOCATION = "sseflask.location"

_TYPES = {403: "permission_error", 429: "rate_limit_error"}

#: Characters of a message.
_MOST = 4_000
#: Characters of it in the log.
_MOST_IN_LOG = 1_000
#: Characters of all that an upstream says beside its message.
_MOST_FURTHER = 16_384
#: Characters of a body that is no JSON: more than is told, so that no key is cut in half.
_MOST_TEXT = 8_192

#: Statuses of errors that come inside a 200: by their ``code``, ``type`` or ``status``.
_STATUSES = {
    "insufficient_quota": 429,
    "quota_exceeded": 429,
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "rate_limit_reached": 429,
    "rate_limited": 429,
    "resource_exhausted": 429,
    "too_many_requests": 429,
    "toomanyrequests": 429,
    "invalid_api_key": 401,
    "authentication_error": 401,
    "unauthenticated": 401,
    "unauthorized": 401,
    "billing_error": 402,
    "insufficient_balance": 402,
    "permission_denied": 403,
    "permission_error": 403,
    "model_not_found": 404,
    "not_found": 404,
    "not_found_error": 404,
    "notfounderror": 404,
    "request_too_large": 413,
    "badrequesterror": 400,
    "bad_request": 400,
    "content_filter": 400,
    "content_policy_violation": 400,
    "context_length_exceeded": 400,
    "invalid_argument": 400,
    "invalid_prompt": 400,
    "invalid_request_error": 400,
    "unsupported_parameter": 400,
    "validation_error": 400,
    "overloaded": 503,
    "overloaded_error": 503,
    "server_is_overloaded": 503,
    "service_unavailable": 503,
    "unavailable": 503,
}


def refused(response: httpx2.Response, content: bytes, secrets: Iterable[str]) -> Failure:
    """The failure of a request that was answered with another status than 200.

    Args:
        response: with its headers.
        content: the beginning of its body.
        secrets: values to mask in whatever the upstream says.
    """
    secrets = tuple(secrets)
    status = response.status_code
    if LOCATION in response.extensions:
        return _redirected(response, secrets)
    text = text_of(content, response.headers.get("Content-Type", ""))
    phrase = mask(response.reason_phrase[:100], secrets)
    fallback = f"The upstream failed with status {status}{f' ({phrase})' if phrase else ''}"
    error = _shaped(value_of(text), text, status, fallback, secrets)
    log.warning("the upstream answered %d: %r", status, error["message"][:_MOST_IN_LOG])
    headers = relayed_headers(response.headers, secrets, refusal=True)
    if status == 409:
        headers.setdefault(SHOULD_RETRY, "true")  # as OpenAI's clients take it
    return _failure(status, error, headers)


def reported(value: Any, secrets: Iterable[str]) -> UpstreamFailure:
    """The failure that an upstream told inside an answer that began well.

    Args:
        value: what it sent, as JSON: its error, or an object that has one.
        secrets: values to mask.
    """
    secrets = tuple(secrets)
    status = _status_of(value)
    error = _shaped(value, _as_text(value), status, "The upstream failed", secrets)
    log.warning("the upstream told an error: %r", error["message"][:_MOST_IN_LOG])
    return _failure(status, error, {})


def unfit(what: str, text: str, secrets: Iterable[str]) -> Failure:
    """The failure of an answer that can't be relayed.

    Args:
        what: what is wrong with it, to follow "The upstream's answer can't be relayed: ".
        text: the beginning of it, or of the part that is wrong.
        secrets: values to mask.
    """
    words = excerpt(mask(text[:_MOST_TEXT], secrets))
    message = f"The upstream's answer can't be relayed: {what}" + (f": {words}" if words else ".")
    log.warning("the upstream's answer can't be relayed: %s: %r", what, words)
    return Failure(message, status=502, code="upstream_invalid")


def _redirected(response: httpx2.Response, secrets: tuple[str, ...]) -> Failure:
    place = response.extensions[LOCATION]
    try:
        # It may be relative, and a query may hold a key.
        target = urlsplit(urljoin(str(response.request.url), place))
        host = target.netloc.rpartition("@")[2]
        where = mask(f"{target.scheme}://{host}{target.path}"[:500], secrets)
    except ValueError:
        where = ""
    told = f" to {where}" if where.isprintable() and where else ""
    log.warning("the upstream answered %d, redirecting%s", response.status_code, told)
    return Failure(
        f"The upstream redirects (status {response.status_code}){told}, which is not followed: "
        "set OPENAI_BASE_URL to the address that answers itself.",
        status=502,
        code="upstream_redirected",
        headers={SHOULD_RETRY: "false"},
    )


def _failure(status: int, error: dict[str, Any], headers: dict[str, str]) -> UpstreamFailure:
    if status in (401, 407):
        # It is about our key. Passed on, the client would take its own token for a bad one.
        whose = "key (OPENAI_API_KEY)" if status == 401 else "way through the proxy"
        return UpstreamFailure(
            502,
            {
                "message": f"The upstream refused this server's {whose}: {error['message']}",
                "type": "server_error",
                "param": None,
                "code": "upstream_unauthorized",
            },
            {SHOULD_RETRY: "false"},
        )
    return UpstreamFailure(status if 400 <= status < 600 else 502, error, headers)


def _status_of(value: Any) -> int:
    """The status that fits an error, by what it says itself; 502 if it says nothing."""
    error = _error_in(value)
    outer = value if isinstance(value, dict) else {}
    for each in (error, outer):
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
    if not isinstance(value, dict):
        return {}
    return value["error"] if isinstance(value.get("error"), dict) else value


def _shaped(
    value: Any, text: str, status: int, fallback: str, secrets: tuple[str, ...]
) -> dict[str, Any]:
    """An error object with OpenAI's four fields, made from whatever the upstream sent."""
    given = _error_in(value)
    said = mask(reason(value), secrets)
    if not said:
        words = excerpt(mask(text[:_MOST_TEXT], secrets))
        said = f"{fallback}: {words}" if words else f"{fallback}."
    if len(said) > _MOST:
        said = f"{said[:_MOST]}..."
    further: dict[str, Any] = {}
    # An object of OpenAI's shape keeps what else it says, within limits.
    if isinstance(given.get("message"), str) and len(_as_text(given)) <= _MOST_FURTHER:
        further = masked(given, secrets)
    kind = further.get("type", _scalar(given.get("type"), secrets))
    if not isinstance(kind, str) or not kind or kind == "error":
        kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {
        **further,
        "message": said,
        "type": kind,
        "param": _scalar(given.get("param"), secrets),
        "code": _scalar(given.get("code"), secrets),
    }


def _scalar(value: Any, secrets: tuple[str, ...]) -> Any:
    if isinstance(value, str):
        return mask(value[:_MOST], secrets)
    return masked(value, secrets) if isinstance(value, (int, float)) else None


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False)
    except (ValueError, RecursionError):
        return ""
