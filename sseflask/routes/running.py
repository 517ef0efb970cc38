"""Beginning a run: who asks, what may be said about it, and what is too much."""

from __future__ import annotations

import hashlib
import math
from typing import Annotated, Any, Literal

from flask import Response, request
from pydantic import BaseModel, BeforeValidator

from sseflask.auth.access import require
from sseflask.auth.tokens import Caller
from sseflask.completions.not_streamed import NOT_STREAMED, stream_document
from sseflask.completions.upstream import CompletionRequest, Upstream, current_upstream
from sseflask.completions.usage import with_usage_notes
from sseflask.counters.counts import COUNTS, LOCK
from sseflask.errors import Failure
from sseflask.routes.viewing import headers_with
from sseflask.runs.failures import log_full
from sseflask.runs.formats import Format
from sseflask.runs.runs import Started, current_runs
from sseflask.store.api import KeyReused, StoreError
from sseflask.store.run_api import StoreFull, TooMany
from sseflask.store.unavailable import store_unavailable
from sseflask.transport.choose import begin_long
from sseflask.transport.failures import too_many
from sseflask.web.idempotency import key_reused, scoped_key
from sseflask.web.parameters import Text
from sseflask.web.rate_limits import account_of, count_request
from sseflask.web.refusals import is_event_source

__all__ = ["MOST_GRACE", "RunParameters", "begin", "check_prompt", "identify", "refuse_guess"]

#: Seconds that a run goes on without viewers, unless a request says.
GRACE = 30.0
MOST_GRACE = 86_400.0

_NOBODY = Caller("")


def _leaving(value: Any) -> Any:
    if value == "cancel":
        return 0.0
    if value == "continue":
        return math.inf
    try:
        seconds = float(value) if isinstance(value, (str, int, float)) else math.nan
    except (ValueError, OverflowError):
        seconds = math.nan
    text = str(value)
    if (
        isinstance(value, bool)
        or "_" in text
        or not text.isascii()
        or not 0 <= seconds <= MOST_GRACE
    ):
        raise ValueError(
            f"it must be cancel, continue, or seconds from 0 to {MOST_GRACE:.0f} that the "
            "completion goes on without anybody to read it"
        )
    return seconds


#: What a run is left to do when its last viewer has gone, in seconds: 0 to cancel, or infinite.
Leaving = Annotated[float, BeforeValidator(_leaving)]


class RunParameters(BaseModel):
    """What a request can say about its run, whatever it asks the upstream for."""

    on_disconnect: Leaving = GRACE
    heartbeat: Literal["early"] | None = None
    idempotency_key: Text | None = None


def identify(*, to_read: bool = False) -> Caller:
    """Who asks: anybody with the demo model, else somebody with the right ``complete``.

    Raises:
        Failure: 400, 401 or 403.
    """
    return _NOBODY if current_upstream().demo else require("complete", to_read=to_read)


def refuse_guess() -> Response | None:
    """The answer to a browser that only guesses it may need the page: nothing is begun for it."""
    purposes = (request.headers.get("Sec-Purpose", ""), request.headers.get("Purpose", ""))
    if not any("prefetch" in purpose.lower() for purpose in purposes):
        return None
    response = Response(status=204)
    # Or the browser could take the empty answer for the real one when it comes to that.
    response.cache_control.no_store = True
    return response


def check_prompt(content: bytes, most: int, param: str | None = None) -> None:
    """Refuse a prompt that is too long.

    Args:
        content: it, as JSON.
        most: its bytes at most.
        param: what it came in.

    Raises:
        Failure: 413.
    """
    if len(content) > most:
        raise Failure(
            f"The prompt has {len(content)} bytes as JSON, and this server takes {most} "
            "(SSEFLASK_MAX_PROMPT).",
            status=413,
            type="invalid_request_error",
            param=param,
            code="prompt_too_long",
        )


def begin(
    caller: Caller,
    asked: CompletionRequest,
    parameters: RunParameters,
    form: Format,
    *,
    route: str,
    whole: bool = False,
    resumable: bool = True,
) -> Started:
    """Begin a run, or come back to the one with the same key. Blocks until it is in the log.

    Args:
        caller: whom it will belong to.
        asked: what to ask the upstream for.
        parameters: the request's.
        form: the format of its response.
        route: what a key is scoped to, beside the subject.
        whole: the answer is one JSON document.
        resumable: whether the client comes back when it is sent away.

    Raises:
        Failure: 400 or 409 for the key, 429, 503.
    """
    if not begin_long(request.environ):
        with LOCK:
            COUNTS.streams["run"].refused += 1
        raise too_many("streams")  # before anybody is asked, who would have to be paid
    subject = caller.subject
    key = scoped_key(subject, route, parameters.idempotency_key)
    account = account_of(subject)
    upstream = current_upstream()
    count_request(account, demo=upstream.demo)
    told: dict[str, str] = {}
    answer = stream_document if whole else Upstream.stream
    try:
        started = current_runs().start(
            lambda: with_usage_notes(answer(upstream, asked, told)),
            form,
            subject=subject,
            account=account,
            label=NOT_STREAMED if whole else asked.dialect,
            grace=parameters.on_disconnect,
            key=key,
            digest=hashlib.sha256(asked.body).digest() if key else b"",
            # Neither would be JSON.
            announce=not whole and is_event_source(request),
            early=not whole and parameters.heartbeat == "early",
            resumable=resumable,
        )
    except StoreFull:
        raise log_full() from None
    except StoreError as error:
        raise store_unavailable("run log") from error
    if isinstance(started, KeyReused):
        raise key_reused("completion")
    if isinstance(started, TooMany):
        raise Failure(
            f"{started.running} completions of yours are running, and this server runs no more at "
            "once (SSEFLASK_MAX_RUNS): wait for one to end, or stop one with DELETE /runs/<id>.",
            status=429,
            type="rate_limit_error",
            code="too_many_runs",
            headers={"Retry-After": "5"},
            transient=True,
        )
    started.viewer.repeatable = key is not None
    started.viewer.complete_headers = headers_with(told)
    return started
