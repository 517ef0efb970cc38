"""How a request begins the run of a completion: its caller, its parameters, its limits."""

from __future__ import annotations

import contextlib
import hashlib
import math
from typing import Annotated, Any, Literal

from flask import Request, Response, request
from pydantic import BaseModel, BeforeValidator
from werkzeug.formparser import FormDataParser

from sseflask.auth.access import require_complete
from sseflask.auth.tokens import Caller
from sseflask.completions.completion_outcome import with_usage_notes
from sseflask.completions.dialects import DOCUMENT_LABEL
from sseflask.completions.formats import DOCUMENT
from sseflask.completions.upstream import CompletionRequest, current_upstream
from sseflask.counters.counts import COUNTS, LOCK
from sseflask.routes.run_responses import headers_with, nothing_left
from sseflask.runs.format_api import Format
from sseflask.runs.runs import Started, current_runs
from sseflask.transport.choose import begin_long
from sseflask.transport.failures import worker_full
from sseflask.web.parameters import Text, check_seconds, invalid, scoped_key
from sseflask.web.rate_limits import account_of, current_limits
from sseflask.web.refusals import is_event_source

#: Seconds that a run goes on without viewers by default, and at most if it does not go on for ever.
GRACE = 30.0
MAX_GRACE = 86_400.0

_NOBODY = Caller("")


def _grace(value: Any) -> Any:
    if value == "cancel":
        return 0.0
    if value == "continue":
        return math.inf
    with contextlib.suppress(ValueError):
        seconds = check_seconds(value)
        if 0 <= seconds <= MAX_GRACE:
            return seconds
    raise ValueError(
        f"it must be cancel, continue, or seconds from 0 to {MAX_GRACE:.0f} that the "
        "completion goes on without viewers"
    )


#: Seconds that a run goes on when its last viewer has left: 0 to cancel it, or infinite.
Grace = Annotated[float, BeforeValidator(_grace)]


class RunParameters(BaseModel):
    """The parameters of a run, which every request for a completion takes."""

    on_disconnect: Grace = GRACE
    heartbeat: Literal["early"] | None = None
    idempotency_key: Text | None = None


class SizedRequest(Request):
    """A request whose view can set the limit of its body, which Flask 3.0 only reads.

    A malformed form raises ValueError in its view, and is not read as an empty one.
    """

    _most: int | None = None

    @property
    def max_content_length(self) -> int | None:
        return super().max_content_length if self._most is None else self._most

    @max_content_length.setter
    def max_content_length(self, most: int | None) -> None:
        self._most = most

    def make_form_data_parser(self) -> FormDataParser:
        """As Werkzeug's, which silently reads a truncated form as an empty one."""
        parser = super().make_form_data_parser()
        parser.silent = False
        return parser


def take_prompts() -> None:
    """Raise the limit of the current request's body by the longest prompt.

    To be called when the sender's right is checked: nothing of the body has been read before. The
    demo model's senders have no right, so their limit stays.
    """
    limit, upstream = request.max_content_length, current_upstream()
    if limit is not None and not upstream.demo:
        request.max_content_length = request.max_form_memory_size = limit + upstream.max_prompt


def identify(*, to_read: bool = False) -> Caller:
    """The caller: with the demo model anybody, else one with the right ``complete``."""
    return _NOBODY if current_upstream().demo else require_complete(to_read=to_read)


def refuse_guess() -> Response | None:
    """The response to a browser's prefetch, which begins nothing; ``None`` for other requests."""
    purposes = (request.headers.get("Sec-Purpose", ""), request.headers.get("Purpose", ""))
    if not any("prefetch" in purpose.lower() for purpose in purposes):
        return None
    # Not to be stored: the browser could use it when the page is really needed.
    return nothing_left()


def check_prompt(content: bytes, max_bytes: int, param: str | None = None) -> None:
    """Refuse, with 413, a prompt that is too long as JSON; ``param`` is where it came in."""
    if len(content) > max_bytes:
        raise invalid(
            f"The prompt has {len(content)} bytes as JSON, and this server takes {max_bytes} "
            "(SSEFLASK_MAX_PROMPT).",
            status=413,
            param=param,
            code="prompt_too_long",
        )


def begin(
    caller: Caller,
    completion: CompletionRequest,
    parameters: RunParameters,
    format: Format,
    *,
    route: str,
    resumable: bool = True,
) -> Started:
    """Begin a run, or come back to the one with the same key. Blocks until it is stored.

    Args:
        route: the scope of a key, beside the caller's subject.
        resumable: whether the client reconnects if it is told to.
    """
    if not begin_long(request.environ):
        with LOCK:
            COUNTS.streams["run"].refused += 1
        raise worker_full("streams")  # before the upstream is asked, which would cost money
    key = scoped_key(caller.subject, route, parameters.idempotency_key)
    account = account_of(caller.subject)
    upstream = current_upstream()
    limits = current_limits()
    limits.count("completions", account)
    if upstream.demo:
        limits.count_demo()
    headers: dict[str, str] = {}
    streamed = format is not DOCUMENT
    generate = upstream.stream if streamed else upstream.document
    started = current_runs().start(
        lambda: with_usage_notes(generate(completion, headers)),
        format,
        subject=caller.subject,
        account=account,
        label=completion.dialect if streamed else DOCUMENT_LABEL,
        alone_seconds=parameters.on_disconnect,
        key=key,
        digest=hashlib.sha256(completion.body).digest() if key else b"",
        # Neither would be JSON.
        announce=streamed and is_event_source(request),
        early=streamed and parameters.heartbeat == "early",
        resumable=resumable,
    )
    started.viewer.repeatable = key is not None
    started.viewer.complete_headers = headers_with(headers)
    return started
