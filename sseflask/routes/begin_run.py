"""How a request begins the run of a completion: its caller, its parameters, its limits."""

from __future__ import annotations

import contextlib
import hashlib
from typing import Annotated, Any, Literal

from flask import Request, Response, request
from pydantic import BaseModel, BeforeValidator
from werkzeug.datastructures import ImmutableMultiDict, MultiDict
from werkzeug.formparser import FormDataParser
from werkzeug.utils import cached_property

from sseflask.auth.access import require_complete
from sseflask.auth.tokens import Caller
from sseflask.completions.completion_source import CompletionSource
from sseflask.completions.dialects import DOCUMENT_LABEL
from sseflask.completions.upstream import CompletionRequest, current_upstream
from sseflask.errors import invalid
from sseflask.extension import current_sse
from sseflask.run_arguments import OnDisconnect
from sseflask.runs.outcome import Generated
from sseflask.web.idempotency import given_key
from sseflask.web.parameters import Text, check_seconds
from sseflask.web.rate_limits import account_of, current_limits

#: Seconds that a run goes on without viewers by default, and at most if it does not go on for ever.
GRACE = 30.0
MAX_GRACE = 86_400.0

_NOBODY = Caller("")


def _grace(value: Any) -> OnDisconnect:
    if value in ("cancel", "continue"):
        return value  # type: ignore[no-any-return]  # it is one of them
    with contextlib.suppress(ValueError):
        seconds = check_seconds(value)
        if 0 <= seconds <= MAX_GRACE:
            return seconds
    raise ValueError(
        f"it must be cancel, continue, or seconds from 0 to {MAX_GRACE:.0f} that the "
        "completion goes on without viewers"
    )


#: What becomes of a run when its last viewer has left.
Grace = Annotated[OnDisconnect, BeforeValidator(_grace)]


class RunParameters(BaseModel):
    """The parameters of a run, which every request for a completion takes."""

    on_disconnect: Grace = GRACE
    heartbeat: Literal["early"] | None = None
    idempotency_key: Text | None = None


_NOTHING = ImmutableMultiDict[str, str]()


class SizedRequest(Request):
    """A request whose view can set the limit of its body, which Flask 3.0 only reads.

    A malformed form raises ValueError in its view, and is not read as an empty one.
    """

    _most: int | None = None

    # Werkzeug parses an empty query, and cookies that are not there, as thoroughly as full ones.

    @cached_property
    def args(self) -> MultiDict[str, str]:
        return super().args if self.query_string else _NOTHING

    @cached_property
    def cookies(self) -> ImmutableMultiDict[str, str]:
        return super().cookies if "HTTP_COOKIE" in self.environ else _NOTHING

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


class Completion(CompletionSource):
    """A request for a completion, as the run that it becomes.

    Args:
        request: what the upstream is asked.
        streamed: whether its frames are those of a stream; otherwise it is one document.
    """

    def __init__(self, request: CompletionRequest, *, streamed: bool) -> None:
        super().__init__(request.dialect if streamed else DOCUMENT_LABEL)
        self.digest = hashlib.sha256(request.body).digest()
        self._request = request
        upstream = current_upstream()
        self._answer = upstream.stream if streamed else upstream.document

    def answer(self, headers: dict[str, str]) -> Generated:
        return self._answer(self._request, headers)


def run_completion(
    caller: Caller,
    completion: CompletionRequest,
    parameters: RunParameters,
    format: str,
    *,
    reconnects: bool = True,
) -> Response:
    """Answer with the run of a completion, or with the one that has the same key.

    Args:
        reconnects: whether the client reconnects if it is told to.
    """
    account = account_of(caller.subject)
    upstream = current_upstream()
    limits = current_limits()
    limits.count("completions", account)
    if upstream.demo:
        limits.count_demo()
    return current_sse().run(
        Completion(completion, streamed=format != "document"),
        owner=caller.subject or None,
        account=account,
        idempotency_key=given_key(request, parameters.idempotency_key),
        on_disconnect=parameters.on_disconnect,
        format=format,
        first_byte=0 if parameters.heartbeat == "early" else None,
        expires_at=caller.expires,
        reconnects=reconnects,
    )
