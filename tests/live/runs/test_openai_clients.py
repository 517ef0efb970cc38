"""OpenAI's own clients, in Python and in JavaScript, pointed at the service's `/v1`."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionChunk

from tests.live.kit.aimock import Aimock
from tests.live.kit.run_events import joined
from tests.live.kit.servers import Server
from tests.live.kit.services import authorization
from tests.live.kit.tools import node
from tests.live.kit.waiting import until

Messages = list[dict[str, str]]


def client_of(relay: Server, access_token: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{relay.url}/v1", api_key=access_token, max_retries=0)


def messages(content: str) -> Any:
    return [{"role": "user", "content": content}]


def text_of(chunks: list[ChatCompletionChunk]) -> str:
    choices = [choice for chunk in chunks for choice in chunk.choices]
    return joined("".join(choice.delta.content or "" for choice in choices))


@pytest.mark.parametrize("message", ["story", "reasoning", "a little late", "paced story"])
def test_openai_python_streams_chat(
    relay: Server, upstream: Aimock, access_token: str, tag: str, message: str
) -> None:
    with client_of(relay, access_token) as client:
        chunks = list(
            client.chat.completions.create(
                model="some-model",
                messages=messages(f"{message} #{tag}"),
                stream=True,
                stream_options={"include_usage": True},
                temperature=0.25,
                seed=7,
            )
        )
    assert text_of(chunks) == upstream.story * (4 if message == "paced story" else 1)
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices][-1] == "stop"
    assert chunks[-1].usage is not None
    asked = upstream.asked()[-1]
    assert (asked["model"], asked["temperature"], asked["seed"]) == ("some-model", 0.25, 7)
    assert asked["messages"] == messages(f"{message} #{tag}")
    assert upstream.asked_for(f"{message} #{tag}") == 1


def test_nothing_is_added_to_what_is_asked(
    relay: Server, upstream: Aimock, access_token: str, tag: str
) -> None:
    """A client that did not ask for usage gets none; the upstream sees the body unchanged."""
    with client_of(relay, access_token) as client:
        chunks = list(
            client.chat.completions.create(
                model="m",
                messages=messages(f"story #{tag}"),
                stream=True,
                extra_body={"some_parameter": {"of": ["ours"]}},
            )
        )
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)
    asked = {name: value for name, value in upstream.asked()[-1].items() if name[0] != "_"}
    assert asked == {
        "model": "m",
        "messages": messages(f"story #{tag}"),
        "stream": True,
        "some_parameter": {"of": ["ours"]},
    }


def test_openai_python_through_heartbeats(relay: Server, access_token: str, tag: str) -> None:
    with client_of(relay, access_token) as client:
        chat = client.chat.completions.create(
            model="m", messages=messages(f"few words #{tag}"), stream=True
        )
        assert text_of(list(chat)) == "few words, and far between"
        responses = client.responses.create(model="m", input=f"few words #{tag}", stream=True)
        deltas = [event.delta for event in responses if event.type == "response.output_text.delta"]
    assert "".join(deltas) == "few words, and far between"


def test_there_are_heartbeats(relay: Server, access_token: str, tag: str) -> None:
    """What the tests with heartbeats rely on; and that they are the ones that clients survive."""
    headers = authorization(access_token)
    body = {"model": "m", "stream": True, "messages": messages(f"few words #{tag}")}
    url = f"{relay.url}/v1/chat/completions"
    answer = httpx.post(url, json=body, headers=headers, timeout=30)
    assert answer.status_code == 200
    assert answer.text.count("\n: ping\n") > 3
    assert ": ping\n\n" not in answer.text
    assert answer.text.endswith("data: [DONE]\n\n")


def test_openai_python_without_a_stream(
    relay: Server, upstream: Aimock, access_token: str, tag: str
) -> None:
    with client_of(relay, access_token) as client:
        raw = client.chat.completions.with_raw_response.create(
            model="m", messages=messages(f"story #{tag}")
        )
        answer = raw.parse()
        assert answer.choices[0].message.content == upstream.story
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage is not None
        assert len(raw.headers["X-Run-Id"]) == 32
        response = client.responses.create(model="m", input=f"story #{tag}")
        assert response.output_text == upstream.story
        assert response.status == "completed"
    assert upstream.asked_for(f"story #{tag}") == 2


def test_openai_python_streams_responses(
    relay: Server, upstream: Aimock, access_token: str, tag: str
) -> None:
    with client_of(relay, access_token) as client:
        events = list(
            client.responses.create(
                model="m", instructions="Be kind.", input=f"paced story #{tag}", stream=True
            )
        )
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed"
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert joined("".join(deltas)) == upstream.story * 4
    assert events[-1].response.output_text == upstream.story * 4
    assert upstream.asked_for(f"paced story #{tag}") == 1


def test_openai_python_gets_tools(relay: Server, access_token: str, tag: str) -> None:
    with client_of(relay, access_token) as client:
        tools: Any = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
        chunks = client.chat.completions.create(
            model="m", messages=messages(f"tools #{tag}"), stream=True, tools=tools
        )
        arguments = ["", ""]
        reason = None
        for chunk in chunks:
            for choice in chunk.choices:
                reason = choice.finish_reason or reason
                for call in choice.delta.tool_calls or []:
                    assert call.function is not None
                    arguments[call.index] += call.function.arguments or ""
    assert [json.loads(each) for each in arguments] == [{"city": "Zürich", "unit": "°C"}, {}]
    assert reason == "tool_calls"


def test_openai_python_lists_models(relay: Server, upstream: Aimock, access_token: str) -> None:
    with client_of(relay, access_token) as client:
        found = [model.id for model in client.models.list()]
    assert "gpt-4o" in found
    body = httpx.get(f"http://127.0.0.1:{upstream.port}/v1/models").json()
    assert found == [model["id"] for model in body["data"]]


ERRORS = [
    ("limit", openai.RateLimitError, 429, "rate_limit_error", "rate_limit_exceeded"),
    ("bad request", openai.BadRequestError, 400, "invalid_request_error", "model_not_found"),
    ("broken", openai.InternalServerError, 500, "server_error", None),
]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("endpoint", ["chat", "responses"])
@pytest.mark.parametrize(("message", "kind", "status", "type_", "code"), ERRORS)
def test_openai_python_raises_typed_errors(
    relay: Server,
    upstream: Aimock,
    access_token: str,
    tag: str,
    message: str,
    kind: type[openai.APIStatusError],
    status: int,
    type_: str,
    code: str | None,
    endpoint: str,
    stream: bool,
) -> None:
    said = f"{message} #{tag}"
    with client_of(relay, access_token) as client:
        create: Any = (
            client.chat.completions.create if endpoint == "chat" else client.responses.create
        )
        asked: Any = {"messages": messages(said)} if endpoint == "chat" else {"input": said}
        with pytest.raises(kind) as caught:
            create(model="m", stream=stream, **asked)
    error = caught.value
    assert (error.status_code, error.type, error.code) == (status, type_, code)
    assert isinstance(error.body, dict)
    assert error.body["message"]
    if status == 429:
        assert error.response.headers["retry-after"] == "1"
    assert upstream.asked_for(said) == 1


def test_openai_python_retries_by_itself(
    relay: Server, upstream: Aimock, access_token: str, tag: str
) -> None:
    """Its two retries are requests of their own: an error is not kept as the answer to them."""
    with (
        client_of(relay, access_token).with_options(max_retries=1) as client,
        pytest.raises(openai.RateLimitError),
    ):
        client.chat.completions.create(model="m", messages=messages(f"limit #{tag}"), stream=True)
    assert upstream.asked_for(f"limit #{tag}") == 2


def test_openai_python_without_a_token(relay: Server) -> None:
    with client_of(relay, "sk-not-one-of-ours") as client:
        with pytest.raises(openai.AuthenticationError):
            client.chat.completions.create(model="m", messages=messages("story"), stream=True)
        with pytest.raises(openai.AuthenticationError):
            client.models.list()


def test_openai_python_gets_an_error_in_the_stream(
    relay: Server, access_token: str, tag: str
) -> None:
    """A truncated answer is an error, not an end, although the SDK could not tell by itself."""
    with client_of(relay, access_token) as client:
        chat = client.chat.completions.create(
            model="m", messages=messages(f"truncated #{tag}"), stream=True
        )
        chunks: list[ChatCompletionChunk] = []
        with pytest.raises(openai.APIError) as caught:
            chunks.extend(chat)
        assert not isinstance(caught.value, (openai.APIStatusError, openai.APIConnectionError))
        assert caught.value.code == "upstream_truncated"
        received: list[Any] = []
        try:
            received.extend(
                client.responses.create(model="m", input=f"truncated #{tag}", stream=True)
            )
        except openai.APIError as error:
            received.append(error)
    # The SDK yields an event with OpenAI's own fields, and raises what has an "error" within it.
    assert isinstance(received[-1], openai.APIError) or received[-1].type == "error"
    assert received[-1].code == "upstream_truncated"


def test_openai_python_repeats_a_request(
    relay: Server, upstream: Aimock, access_token: str, tag: str
) -> None:
    """With the same key it is answered by the same run, whether it streams or not."""
    said = f"paced story #{tag}"
    with client_of(relay, access_token) as client:
        for stream in (True, False):
            key = {"Idempotency-Key": f"key-{tag}-{stream}"}
            runs = []
            for attempt in range(3):
                raw = client.chat.completions.with_raw_response.create(
                    model="m",
                    messages=messages(said),
                    stream=stream,
                    extra_headers=key,
                )
                parsed: Any = raw.parse()
                text = text_of(list(parsed)) if stream else parsed.choices[0].message.content
                assert text == upstream.story * 4
                runs.append(raw.headers["X-Run-Id"])
                assert raw.headers.get("Idempotency-Replayed") == ("true" if attempt else None)
            assert len(set(runs)) == 1
            with pytest.raises(openai.ConflictError) as caught:
                client.chat.completions.create(
                    model="m", messages=messages("story"), stream=stream, extra_headers=key
                )
            assert caught.value.code == "idempotency_key_reused"
    assert upstream.asked_for(said) == 2


def test_two_race_with_one_key(
    relay: Server, upstream: Aimock, access_token: str, tag: str
) -> None:
    """Ten at the same time, on both workers: one run, one call of the upstream."""
    said = f"paced story #{tag}"
    begun = threading.Barrier(10)
    found: list[tuple[str, str]] = []
    failed: list[BaseException] = []

    def ask() -> None:
        try:
            with client_of(relay, access_token) as client:
                begun.wait(20)
                raw = client.chat.completions.with_raw_response.create(
                    model="m",
                    messages=messages(said),
                    stream=True,
                    extra_headers={"Idempotency-Key": f"race-{tag}"},
                )
                found.append((raw.headers["X-Run-Id"], text_of(list(raw.parse()))))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=ask) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed
    assert len(found) == 10
    assert set(found) == {(found[0][0], upstream.story * 4)}
    assert upstream.asked_for(said) == 1


@pytest.mark.parametrize("endpoint", ["chat", "responses"])
def test_resuming_what_openai_python_began(
    relay: Server, upstream: Aimock, access_token: str, tag: str, endpoint: str
) -> None:
    """It breaks off in mid-answer; the run is read to its end by its id, from where it was."""
    said = f"paced story #{tag}"
    headers = authorization(access_token)
    lines: list[str] = []
    with client_of(relay, access_token) as client:
        create: Any = (
            client.chat.completions.with_streaming_response.create
            if endpoint == "chat"
            else client.responses.with_streaming_response.create
        )
        asked: dict[str, Any] = (
            {"messages": messages(said)} if endpoint == "chat" else {"input": said}
        )
        with create(model="m", stream=True, **asked) as response:
            run = response.headers["X-Run-Id"]
            for line in response.iter_lines():
                lines.append(line)
                if len(lines) > 60 and not line:
                    break
    last = next(line.removeprefix("id: ") for line in reversed(lines) if line.startswith("id: "))
    assert last.startswith(f"{run}.")
    url = f"{relay.url}/runs/{run}"
    rest = httpx.get(url, headers={**headers, "Last-Event-ID": last}, timeout=30)
    assert rest.status_code == 200
    everything = httpx.get(url, headers=headers, timeout=30)

    def event_lines(text: list[str]) -> list[str]:
        return [line for line in text if line.startswith(("data: ", "event: ", "id: "))]

    assert event_lines(lines) + event_lines(rest.text.split("\n")) == event_lines(
        everything.text.split("\n")
    )
    assert "[DONE]" in everything.text or "response.completed" in everything.text
    assert httpx.get(url, headers={**headers, "Last-Event-ID": f"{run}.999999"}).status_code != 200
    assert upstream.asked_for(said) == 1
    # Somebody else, who is allowed to complete too, does not even learn that it exists.
    assert httpx.get(url).status_code == 404, "this machine is another subject"


def test_stopping_what_openai_python_began(
    relay: Server, upstream: Aimock, access_token: str, tag: str
) -> None:
    destroyed = upstream.destroyed()
    headers = authorization(access_token)
    with client_of(relay, access_token) as client:
        raw = client.chat.completions.with_raw_response.create(
            model="m", messages=messages(f"slow story #{tag}"), stream=True
        )
        chunks = iter(raw.parse())
        assert next(chunks)
        url = f"{relay.url}/runs/{raw.headers['X-Run-Id']}"
        assert httpx.delete(url).status_code == 404, "this machine is another subject"
        assert httpx.delete(url, headers=headers).json()["status"] == "stopped"
        with pytest.raises(openai.APIError) as caught:
            list(chunks)
    assert caught.value.code == "stopped"
    upstream.wait_for_destroyed(destroyed + 1)


def test_leaving_by_openai_python(
    relay: Server, upstream: Aimock, access_token: str, tag: str
) -> None:
    """Closing its stream is leaving."""
    destroyed = upstream.destroyed()
    with client_of(relay, access_token) as client:
        chat = client.chat.completions.create(
            model="m",
            messages=messages(f"slow story #{tag}"),
            stream=True,
            extra_query={"on_disconnect": "cancel"},
        )
        assert next(chat)
        chat.close()
    upstream.wait_for_destroyed(destroyed + 1)


def test_async_openai_python(relay: Server, upstream: Aimock, access_token: str, tag: str) -> None:
    """Ten at the same time."""

    async def ask(client: openai.AsyncOpenAI, n: int) -> str:
        stream = await client.chat.completions.create(
            model="m", messages=messages(f"tale #{tag}-{n}"), stream=True
        )
        return text_of([chunk async for chunk in stream])

    async def ask_all() -> list[str]:
        url = f"{relay.url}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key=access_token, max_retries=0) as client:
            return await asyncio.gather(*(ask(client, n) for n in range(10)))

    texts = asyncio.run(ask_all())
    assert texts == [upstream.tale_of(f"{tag}-{n}") for n in range(10)]


def npm_openai(relay: Server, token: str, *requests: dict[str, Any]) -> list[dict[str, Any]]:
    """What npm's openai makes of requests, one after the other: see openai-v1.mjs."""
    done = node("openai-v1.mjs", f"{relay.url}/v1", token, json.dumps(requests))
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == len(requests), done.stderr
    return results


def test_npm_openai_streams(relay: Server, upstream: Aimock, access_token: str, tag: str) -> None:
    chat, late, responses = npm_openai(
        relay,
        access_token,
        {"chat": f"paced story #{tag}"},
        {"chat": f"a little late #{tag}"},
        {"responses": f"paced story #{tag}"},
    )
    assert joined(chat["text"]) == joined(responses["text"]) == upstream.story * 4
    assert (chat["end"], chat["finish"]) == ("clean", "stop")
    assert (late["text"], late["end"]) == (upstream.story, "clean")
    assert (responses["end"], responses["finish"]) == ("clean", "response.completed")
    assert len(chat["run"]) == len(responses["run"]) == 32


def test_npm_openai_through_heartbeats(relay: Server, access_token: str, tag: str) -> None:
    for result in npm_openai(
        relay, access_token, {"chat": f"few words #{tag}"}, {"responses": f"few words #{tag}"}
    ):
        assert (result["text"], result["end"]) == ("few words, and far between", "clean")


def test_npm_openai_without_a_stream(
    relay: Server, upstream: Aimock, access_token: str, tag: str
) -> None:
    chat, responses, models = npm_openai(
        relay,
        access_token,
        {"chat": f"story #{tag}", "stream": False},
        {"responses": f"story #{tag}", "stream": False},
        {"models": True},
    )
    assert chat["text"] == responses["text"] == upstream.story
    assert "gpt-4o" in models["text"]


def test_npm_openai_gets_errors(
    relay: Server, upstream: Aimock, access_token: str, tag: str
) -> None:
    limit, broken, truncated, wrong = npm_openai(
        relay,
        access_token,
        {"chat": f"limit #{tag}"},
        {"responses": f"broken #{tag}"},
        {"chat": f"truncated #{tag}"},
        {"chat": f"bad request #{tag}", "stream": False},
    )
    assert (limit["end"], limit["name"], limit["status"]) == ("error", "RateLimitError", 429)
    assert limit["code"] == "rate_limit_exceeded"
    assert (broken["name"], broken["status"]) == ("InternalServerError", 500)
    assert (truncated["end"], truncated["name"]) == ("error", "APIError")
    assert truncated["code"] == "upstream_truncated"
    assert upstream.story.startswith(truncated["text"])
    assert truncated["text"]
    assert (wrong["name"], wrong["status"], wrong["type"]) == (
        "BadRequestError",
        400,
        "invalid_request_error",
    )


def test_npm_openai_repeats_and_aborts(
    relay: Server, upstream: Aimock, access_token: str, tag: str
) -> None:
    """The first is broken off by its signal; the second, with the same key, gets all of it."""
    said, key = f"paced story #{tag}", f"npm-{tag}"
    broken_off, again = npm_openai(
        relay,
        access_token,
        {"chat": said, "key": key, "abort_after": 5},
        {"chat": said, "key": key},
    )
    assert broken_off["run"] == again["run"]
    assert again["replayed"] == "true"
    assert broken_off["text"]
    assert joined(again["text"]) == upstream.story * 4
    assert joined(again["text"]).startswith(joined(broken_off["text"]))
    assert upstream.asked_for(said) == 1

    destroyed = upstream.destroyed()
    (left,) = npm_openai(
        relay,
        access_token,
        {"chat": f"slow story #{tag}", "abort_after": 3, "query": {"on_disconnect": "cancel"}},
    )
    assert left["text"]
    until(lambda: upstream.destroyed() == destroyed + 1, "the upstream's stream is closed")
