"""Completions: a chat with an OpenAI-compatible model, as a stream."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from flask import Blueprint, Response, request
from pydantic import BaseModel, BeforeValidator, Field

from sseflask.auth import require
from sseflask.completions.formats import FORMATS
from sseflask.completions.upstream import current_upstream
from sseflask.response import EventSourceResponse
from sseflask.routes.parameters import Text, read_parameters

__all__ = ["blueprint"]

blueprint = Blueprint("completions", __name__)


def _messages(value: Any) -> Any:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = None
    if (
        not isinstance(value, list)
        or not value
        or not all(isinstance(item, dict) and isinstance(item.get("role"), str) for item in value)
    ):
        raise ValueError(
            'it must be a JSON list of messages, for example [{"role": "user", "content": "hello"}]'
        )
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        raise ValueError("it must be JSON that UTF-8 can carry") from None
    return value


def _from_ui(message: dict[str, Any]) -> dict[str, Any]:
    """A message as OpenAI takes it, also where it is one of the AI SDK's user interface.

    Those have parts in place of a content; what is no text of them is left out.
    """
    if "content" in message or not isinstance(message.get("parts"), list):
        return message
    texts = [part.get("text") for part in message["parts"] if isinstance(part, dict)]
    return {
        "role": message["role"],
        "content": "".join(text for text in texts if isinstance(text, str)),
    }


class CompletionParameters(BaseModel):
    """What a completion can be asked for; ``messages`` overrides the two texts."""

    user_message: Text = "你好"
    system_prompt: Text = "You are a helpful assistant."
    model: Annotated[Text, Field(max_length=256)] = ""
    messages: Annotated[list[dict[str, Any]] | None, BeforeValidator(_messages)] = None
    format: Literal["chunks", "text", "events", "ui"] = "chunks"
    on_disconnect: Literal["cancel"] = "cancel"

    def conversation(self) -> list[dict[str, Any]]:
        """The messages to send."""
        if self.messages is not None:
            return [_from_ui(message) for message in self.messages]
        user = {"role": "user", "content": self.user_message}
        if not self.system_prompt:
            return [user]
        return [{"role": "system", "content": self.system_prompt}, user]


@blueprint.route("/sse/openai_out", methods=["GET", "POST"])
@blueprint.route("/sse/async_openai_out", methods=["GET", "POST"])
def completion() -> Response:
    """Run a chat completion and stream it; the client's leaving cancels it.

    Open to all with the demo model, else for callers with the right ``complete``. Nothing is
    asked of the upstream for HEAD, nor for a browser that only guesses it may need the page.
    """
    if _is_prefetch():
        response = Response(status=204)
        # Or the browser could take the empty answer for the real one when it comes to that.
        response.cache_control.no_store = True
        return response
    upstream = current_upstream()
    caller = None if upstream.demo else require("complete")
    asked = read_parameters(CompletionParameters)
    form = FORMATS[asked.format]
    return EventSourceResponse(
        form.view(upstream.frames(asked.conversation(), asked.model)),
        headers=form.headers,
        failure_event=form.failure_event,
        expires_at=caller.expires if caller else None,
    )


def _is_prefetch() -> bool:
    purposes = (request.headers.get("Sec-Purpose", ""), request.headers.get("Purpose", ""))
    return any("prefetch" in purpose.lower() for purpose in purposes)
