"""The failures of requests that OpenAI's SDK has sent."""

from __future__ import annotations

import openai

from sseflask.completions.upstream_errors import refused, timed_out, unreachable
from sseflask.errors import Failure


def failure_of(error: openai.APIError, secrets: tuple[str, ...]) -> Failure:
    """What the client gets for an error of the SDK: the upstream's own answer, if there is one."""
    if isinstance(error, openai.APIStatusError):
        return refused(error.response, error.response.content, secrets)
    if isinstance(error, openai.APITimeoutError):
        return timed_out()
    return unreachable(error, secrets)
