from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest import mock

import openai
import pytest

from sseflask.completions import demo
from sseflask.completions.demo import MODEL
from sseflask.completions.upstream import DONE, Upstream
from sseflask.config import load
from tests.service import environment


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    with mock.patch.object(demo, "PAUSE", 0):
        yield


@pytest.fixture
def client() -> Iterator[openai.OpenAI]:
    with demo.client() as made:
        yield made


HELLO: list[Any] = [
    {"role": "user", "content": "first"},
    {"role": "assistant", "content": "second"},
    {"role": "user", "content": "你好, demo"},
]


def test_openai_python_can_read_it(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(messages=HELLO, model="any", stream=True))
    assert {chunk.model for chunk in chunks} == {MODEL}
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({(chunk.id, chunk.created) for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].choices[0].finish_reason == "stop"
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert "demo model" in said
    assert "OPENAI_API_KEY" in said
    assert "OPENAI_BASE_URL" in said
    assert said.endswith("You said: 你好, demo")
    assert len(chunks) > 20


def test_without_a_stream(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(messages=HELLO, model="any")
    assert (answer.object, answer.model) == ("chat.completion", MODEL)
    assert answer.choices[0].finish_reason == "stop"
    assert (answer.choices[0].message.content or "").endswith("你好, demo")


def test_content_in_parts(client: openai.OpenAI) -> None:
    parts: Any = [{"type": "text", "text": "two"}, {"type": "text", "text": "parts"}]
    answer = client.chat.completions.create(
        messages=[{"role": "user", "content": parts}], model="any"
    )
    assert (answer.choices[0].message.content or "").endswith("You said: two parts")


def test_it_knows_nothing_else(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="only knows POST"):
        client.models.list()


def test_it_is_the_upstream_when_there_is_no_other() -> None:
    with environment():
        upstream = Upstream(load())
    assert upstream.demo
    frames = list(upstream.frames(HELLO))
    upstream.close()
    assert frames[-1] == DONE
    assert all(frame.startswith(b"data: {") for frame in frames[:-1])
