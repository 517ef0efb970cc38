"""The kinds of runs that completions are, see `sseflask.runs.kinds`."""

from __future__ import annotations

from collections.abc import Mapping

from flask import request

from sseflask.completions.completion_outcome import CompletionOutcome
from sseflask.completions.dialects import CHAT, DOCUMENT_LABEL, RESPONSES
from sseflask.completions.formats import DOCUMENT, FORMATS
from sseflask.logs.request_ids import HEADER, is_given
from sseflask.runs.kinds import Completing, Kind

#: The response header with the upstream's request id.
UPSTREAM_ID = "X-Upstream-Request-Id"


def completing(upstream: Mapping[str, str]) -> Completing:
    """See `Kind.completing`, given the upstream's headers.

    The upstream's request id gets a name that nobody else uses; it gets the usual name too unless
    the current request brought an id of its own.
    """
    keeps_own = is_given(request.environ)

    def complete(headers: Mapping[str, str]) -> dict[str, str]:
        completed = {**upstream, **headers}
        if (id := completed.get(HEADER)) is not None:
            completed[UPSTREAM_ID] = id
            if keeps_own:
                del completed[HEADER]
        return completed

    return complete


_STREAMED = Kind(FORMATS, CompletionOutcome.of, completing)

KINDS: Mapping[str, Kind] = {
    CHAT: _STREAMED,
    RESPONSES: _STREAMED,
    DOCUMENT_LABEL: Kind({"document": DOCUMENT}, CompletionOutcome.of, completing),
}
