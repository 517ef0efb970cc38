from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from typing import Any
from unittest import mock

import httpx2
import openai
import pytest

from sseflask.completions import demo
from sseflask.completions.completion_outcome import CompletionOutcome, usage_of
from sseflask.completions.demo import MODEL
from sseflask.completions.upstream import CompletionRequest, Upstream
from sseflask.config import load
from sseflask.errors import Failure
from tests.scripted_upstream import complete, notes_of, read_all
from tests.service import environment


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    with mock.patch.object(demo, "PAUSE", 0):
        yield


@pytest.fixture
def client() -> Iterator[openai.OpenAI]:
    transport = httpx2.Client(transport=httpx2.MockTransport(demo.respond), trust_env=False)
    with openai.OpenAI(
        api_key="none", base_url="http://demo.invalid/v1", max_retries=0, http_client=transport
    ) as made:
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


def test_usage_is_given_when_it_is_asked_for(client: openai.OpenAI) -> None:
    *others, last = client.chat.completions.create(
        messages=HELLO, model="any", stream=True, stream_options={"include_usage": True}
    )
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens > 20
    assert last.usage.total_tokens == last.usage.prompt_tokens + last.usage.completion_tokens
    assert {chunk.usage for chunk in others} == {None}
    whole = client.chat.completions.create(messages=HELLO, model="any")
    assert whole.usage is not None
    assert whole.usage.total_tokens == last.usage.total_tokens


def test_openai_python_can_read_a_response(client: openai.OpenAI) -> None:
    events = list(client.responses.create(input=HELLO, model="any", stream=True))
    kinds = [event.type for event in events]
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    assert [event.sequence_number for event in events] == list(range(len(events)))
    said = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert said.endswith("You said: 你好, demo")
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == said
    assert last.response.usage is not None
    assert last.response.usage.output_tokens > 20


def test_openai_python_can_put_a_response_together(client: openai.OpenAI) -> None:
    with client.responses.stream(input="hi there", model="any") as stream:
        assert stream.get_final_response().output_text.endswith("You said: hi there")


def test_a_response_without_a_stream(client: openai.OpenAI) -> None:
    answer = client.responses.create(input="hi", model="any")
    assert (answer.object, answer.status, answer.model) == ("response", "completed", MODEL)
    assert answer.output_text.endswith("You said: hi")


def test_the_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]


def test_it_knows_nothing_else(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="only knows POST"):
        client.embeddings.create(input="x", model="y")


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with environment():
        made = Upstream(load())
    assert made.demo
    yield made
    made.close()


def run(upstream: Upstream, path: str, content: bytes) -> tuple[list[bytes], CompletionOutcome]:
    reads, outcome = read_all(upstream.stream(CompletionRequest(path, content)))
    return list(chain.from_iterable(reads)), outcome


ASKED = [
    b'{"messages": [{"role": "user", "content": "\\ud83c"}], "stream": true}',
    b'{"messages": 5, "input": [5, {"role": "user", "content": [5]}], "stream": true}',
    b'{"stream": true, "stream_options": 5}',
]


@pytest.mark.parametrize("content", ASKED)
def test_it_is_the_upstream_when_there_is_no_other(upstream: Upstream, content: bytes) -> None:
    frames, outcome = run(upstream, "/chat/completions", content)
    assert all(frame.startswith(b"data: {") for frame in frames)
    assert outcome == CompletionOutcome("finished", "stop")
    assert (usage_of(notes_of(frames)) or {})["partial"]

    frames, outcome = run(upstream, "/responses", content)
    assert all(frame.startswith(b"event: response.") for frame in frames)
    assert (outcome.kind, outcome.reason) == ("finished", "stop")
    usage = usage_of(notes_of(frames), outcome.frame)
    assert usage is not None
    assert usage["output_tokens"] > 20


@pytest.mark.parametrize("content", ASKED)
@pytest.mark.parametrize("path", ["/chat/completions", "/responses"])
def test_its_answer_in_one_piece(upstream: Upstream, path: str, content: bytes) -> None:
    body = complete(upstream, CompletionRequest(path, content.replace(b"true", b"false")))
    assert json.loads(body)["model"] == MODEL
    assert MODEL.encode() in upstream.models()


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff"])
def test_what_is_no_request(upstream: Upstream, content: bytes) -> None:
    with pytest.raises(Failure) as caught:
        complete(upstream, CompletionRequest("/chat/completions", content))
    assert (caught.value.status, caught.value.code) == (400, "invalid_json")


@pytest.mark.parametrize("prompt", ["a " * 100_000, "\U0001f600" * 60_000])
@pytest.mark.parametrize("path", ["/chat/completions", "/responses"])
def test_its_answer_is_short_whatever_it_is_asked(
    upstream: Upstream, path: str, prompt: str
) -> None:
    asked = {
        "messages": [{"role": "user", "content": prompt}],
        "input": prompt,
        "instructions": prompt,
        "stream": True,
    }
    frames, outcome = run(upstream, path, json.dumps(asked).encode())
    assert sum(map(len, [*frames, outcome.frame or b""])) < 100_000
    body = complete(
        upstream, CompletionRequest(path, json.dumps({**asked, "stream": False}).encode())
    )
    assert len(body) < 10_000
    assert prompt[:200] in json.dumps(json.loads(body), ensure_ascii=False)


def test_the_sdk_is_imported_at_the_start_and_only_where_there_is_an_upstream() -> None:
    script = """
import os, sys
from sseflask.app import create_app
from sseflask.completions.upstream import CompletionRequest, current_upstream
with create_app().app_context():
    list(current_upstream().document(CompletionRequest("/chat/completions", b"{}")))
print("openai" in sys.modules)
os.environ["OPENAI_BASE_URL"] = "http://127.0.0.1:9/v1"
create_app()
print("openai" in sys.modules)
"""
    with environment():
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        )
    assert done.stdout.split() == ["False", "True"]
