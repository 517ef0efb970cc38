"""Completions: a chat with an OpenAI-compatible model, streamed and stored as it runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any

from flask import Blueprint, Response, request
from pydantic import BeforeValidator, Field

from sseflask import run_responses
from sseflask.completions.formats import FORMATS, FormatName
from sseflask.completions.formats.ui_messages import UnusableMessage, is_ui_message, openai_messages
from sseflask.completions.upstream import CompletionRequest, current_upstream
from sseflask.errors import Failure, invalid
from sseflask.extension import current_sse
from sseflask.loop.callbacks import TimeSlice
from sseflask.routes.begin_run import (
    RunParameters,
    check_prompt,
    identify,
    run_completion,
    take_prompts,
)
from sseflask.run_responses import Sending
from sseflask.web.cursor import last_event_id
from sseflask.web.parameters import Text, read_parameters

blueprint = Blueprint("completions", __name__)


def _messages(value: Any) -> Any:
    if (
        not isinstance(value, list)
        or not value
        or not all(isinstance(item, dict) and isinstance(item.get("role"), str) for item in value)
    ):
        raise ValueError(
            'it must be a JSON list of messages, for example [{"role": "user", "content": "hello"}]'
        )
    return value


class CompletionParameters(RunParameters):
    """The parameters of a completion; ``messages`` overrides the two texts."""

    user_message: Text = "你好"
    system_prompt: Text = "You are a helpful assistant."
    model: Annotated[Text, Field(max_length=256)] = ""
    messages: Annotated[list[dict[str, Any]] | None, BeforeValidator(_messages)] = None
    format: FormatName = "chunks"
    last_event_id: Text = ""

    def conversation(self) -> list[dict[str, Any]]:
        user = {"role": "user", "content": self.user_message}
        if not self.system_prompt:
            return [user]
        return [{"role": "system", "content": self.system_prompt}, user]


@blueprint.route("/sse/openai_out", methods=["GET", "POST"])
@blueprint.route("/sse/async_openai_out", methods=["GET", "POST"])
def completion() -> Response:
    """Run a chat completion and stream it, or go on with the run of a Last-Event-ID.

    Open to all with the demo model, else for callers with the right ``complete``. HEAD, and a
    browser's prefetch, never ask the upstream.
    """
    if run_responses.begins_nothing():
        return run_responses.nothing_left()
    resumes = last_event_id() is not None
    caller = identify(to_read=resumes)
    take_prompts()
    parameters = read_parameters(CompletionParameters, as_json=("messages",))
    cursor = run_responses.cursor_of_client(parameters.last_event_id)
    if cursor is not None:
        id, _ = run_responses.read_cursor(cursor)
        return current_sse().attach(
            id,
            owner=caller.subject or None,
            format=parameters.format,
            last_event_id=parameters.last_event_id,
            first_byte=0 if parameters.heartbeat == "early" else None,
            expires_at=caller.expires,
        )
    if resumes:
        caller = identify()
    if request.method == "HEAD":
        return run_responses.head(FORMATS[parameters.format], Sending())
    return run_completion(caller, _upstream_request(parameters), parameters, parameters.format)


def _upstream_request(parameters: CompletionParameters) -> CompletionRequest:
    upstream, pause = current_upstream(), TimeSlice()
    if parameters.messages is None:
        param, messages = "user_message", parameters.conversation()
    else:
        param, messages = "messages", _openai_messages(parameters.messages, pause)
    written = []
    for message in messages:
        written.append(_as_json(message))
        pause()
    conversation = b"[%b]" % b",".join(written)
    check_prompt(conversation, upstream.max_prompt, param)
    model = _as_json(parameters.model or upstream.model)
    body = b'{"model":%b,"messages":%b,"stream":true' % (model, conversation)
    pause()
    usage = b',"stream_options":{"include_usage":true}}'
    return CompletionRequest("/chat/completions", body + usage, fallback_body=body + b"}")


def _openai_messages(
    messages: list[dict[str, Any]], pause: Callable[[], None]
) -> list[dict[str, Any]]:
    """The messages for OpenAI's API: its own unchanged, the AI SDK's converted."""
    converted: list[dict[str, Any]] = []
    for number, message in enumerate(messages):
        try:
            converted += (
                openai_messages(message, f"messages[{number}]", pause)
                if is_ui_message(message)
                else [message]
            )
        except UnusableMessage as error:
            raise _invalid_messages(f"{error.path}: {error.reason}", error.path) from None
        pause()
    if not converted:
        raise _invalid_messages("they have no content")
    return converted


def _as_json(value: Any) -> bytes:
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return text.encode()
    except (ValueError, RecursionError):
        raise _invalid_messages("it must be JSON that UTF-8 can carry") from None


def _invalid_messages(reason: str, param: str = "messages") -> Failure:
    return invalid(f"The parameter messages is not valid: {reason}.", param=param)
