"""The routes of OpenAI's API: its clients need another base URL only."""

from __future__ import annotations

from collections.abc import Iterator

from flask import Blueprint, Response

from sseflask.completions.upstream import CompletionRequest, current_upstream
from sseflask.errors import invalid
from sseflask.response import EventSourceResponse
from sseflask.routes.begin_run import (
    RunParameters,
    check_prompt,
    identify,
    run_completion,
    take_prompts,
)
from sseflask.run_responses import DOCUMENT_SECONDS
from sseflask.web.parameters import json_value, read_body, read_query
from sseflask.web.rate_limits import account_of, current_limits

blueprint = Blueprint("openai", __name__, url_prefix="/v1")


@blueprint.post("/chat/completions")
def chat_completions() -> Response:
    """OpenAI's Chat Completions, with every parameter passed on unchanged."""
    return _complete("/chat/completions")


@blueprint.post("/responses")
def responses() -> Response:
    """OpenAI's Responses, with every parameter passed on unchanged."""
    return _complete("/responses")


@blueprint.get("/models")
def models() -> Response:
    """The upstream's models."""
    caller = identify(to_read=True)
    current_limits().count("completions", account_of(caller.subject))
    upstream = current_upstream()

    def answer() -> Iterator[bytes]:
        yield upstream.models()

    # As a stream, so that a client that leaves is noticed while the upstream is slow.
    response = EventSourceResponse(
        answer(), first_byte=DOCUMENT_SECONDS, heartbeat=DOCUMENT_SECONDS, lifetime=0
    )
    response.mimetype = "application/json"
    return response


def _complete(path: str) -> Response:
    caller = identify()
    parameters = read_query(RunParameters)
    take_prompts()
    content = read_body()
    check_prompt(content, current_upstream().max_prompt)
    body = json_value(content)
    if not isinstance(body, dict):
        raise invalid("The body must be a JSON object in UTF-8.", code="invalid_json")
    request = CompletionRequest(path, content)
    format = "chunks" if body.get("stream") is True else "document"
    return run_completion(caller, request, parameters, format, reconnects=False)
