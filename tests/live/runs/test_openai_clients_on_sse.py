"""OpenAI's own clients read a relayed completion as if it came from OpenAI."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionChunk

from tests.live.kit.aimock import Aimock
from tests.live.kit.servers import Server
from tests.live.kit.tools import node


def read_with_openai_python(
    relay: Server, message: str, access_token: str
) -> list[ChatCompletionChunk]:
    with (
        openai.OpenAI(base_url=relay.url, api_key=access_token, max_retries=0) as client,
        client.post(
            "/sse/openai_out",
            body={"user_message": message},
            cast_to=ChatCompletionChunk,
            stream=True,
            stream_cls=openai.Stream[ChatCompletionChunk],
        ) as stream,
    ):
        return list(stream)


@pytest.mark.parametrize("message", ["story", "reasoning", "a little late"])
def test_openai_python_reads_it(
    relay: Server, upstream: Aimock, access_token: str, message: str
) -> None:
    chunks = read_with_openai_python(relay, message, access_token)
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert "".join(choice.delta.content or "" for choice in choices) == upstream.story
    assert choices[-1].finish_reason == "stop"


def test_openai_python_raises_on_an_error(relay: Server, access_token: str) -> None:
    with pytest.raises(openai.RateLimitError, match="Rate limit reached"):
        read_with_openai_python(relay, "limit", access_token)
    with pytest.raises(openai.APIError) as caught:
        read_with_openai_python(relay, "truncated", access_token)
    assert not isinstance(caught.value, (openai.APIStatusError, openai.APIConnectionError))


def read_with_npm_openai(relay: Server, message: str, access_token: str) -> list[dict[str, Any]]:
    body = json.dumps({"user_message": message})
    done = node("openai.mjs", relay.url, "/sse/openai_out", body, access_token)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("message", ["story", "reasoning", "a little late"])
def test_npm_openai_reads_it(
    relay: Server, upstream: Aimock, access_token: str, message: str
) -> None:
    *lines, end = read_with_npm_openai(relay, message, access_token)
    assert end == {"end": "clean"}
    choices = [choice for line in lines for choice in line["chunk"]["choices"]]
    assert "".join(choice["delta"].get("content") or "" for choice in choices) == upstream.story
    assert choices[-1]["finish_reason"] == "stop"


def test_npm_openai_raises_on_an_error(relay: Server, access_token: str) -> None:
    (end,) = read_with_npm_openai(relay, "limit", access_token)
    assert (end["end"], end["name"], end["status"]) == ("error", "RateLimitError", 429)
    assert end["code"] == "rate_limit_exceeded"
    *lines, end = read_with_npm_openai(relay, "truncated", access_token)
    assert lines
    assert (end["end"], end["name"]) == ("error", "APIError")
