"""Clients that resume by themselves while a proxy breaks their connections in mid-answer."""

from __future__ import annotations

import contextlib
import json
import subprocess
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.live.kit.aimock import Aimock
from tests.live.kit.events import Sent
from tests.live.kit.proxy import Proxy
from tests.live.kit.run_events import RESUMABLE
from tests.live.kit.runs import attach, read, run_service, start_path
from tests.live.kit.servers import Server, environment
from tests.live.kit.tools import node_packages

TYPES = "message,reasoning,text,tool_call,usage,done,failure"


def node(script: str, *arguments: str, **changes: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["node", script, *arguments],
        cwd=node_packages(),
        env=environment(**changes),
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )


def lines_of(process: subprocess.Popen[str], seconds: float = 60) -> list[dict[str, Any]]:
    """What it prints until it has ended; it is killed if that takes too long."""
    try:
        said, _ = process.communicate(timeout=seconds)
    finally:
        process.kill()
    assert process.returncode == 0
    return [json.loads(line) for line in said.splitlines()]


def as_dispatched(events: list[Sent]) -> list[dict[str, Any]]:
    """What npm's eventsource makes of events: the id is the event's own, or empty."""
    return [
        {"type": event.event or "message", "data": event.data, "lastEventId": event.id or ""}
        for event in events
    ]


def test_npm_eventsource_resumes_by_itself(relay: Server, upstream: Aimock, tag: str) -> None:
    """In each format: cut twice, everything once, one end, then 204, which closes it for good."""
    forms = {"chunks": [6000, 9000], "text": [1500, 4000], "events": [1500, 4000]}
    with contextlib.ExitStack() as stack:
        proxies, clients = {}, {}
        for format, cuts in forms.items():
            proxy = Proxy(relay.port, cut_after=cuts, reset=format == "text")
            proxies[format] = stack.enter_context(proxy)
            url = f"http://127.0.0.1:{proxy.port}"
            url += start_path(f"steady story #{tag}-{format}", format=format)
            clients[format] = stack.enter_context(node("eventsource.mjs", url, TYPES))
        said = {format: lines_of(client) for format, client in clients.items()}
        for format, proxy in proxies.items():
            assert proxy.broken == 2, format
    for format, lines in said.items():
        assert sum("open" in line for line in lines) == 3, format
        assert lines[-1] == {"error": 204, "closed": True}
        assert not any(line.get("closed") for line in lines[:-1])
        dispatched = [line for line in lines if "data" in line]
        run = next(line["lastEventId"] for line in dispatched if line["lastEventId"])
        with attach(relay, run.partition(".")[0], format) as stream:
            answer = read(stream, format)
        assert dispatched == as_dispatched(list(answer.events))
        assert (answer.text, answer.outcome) == (upstream.story * 8, "finished")
        assert upstream.asked_for(f"steady story #{tag}-{format}") == 1


def test_a_polyfill_resumes_with_its_own_parameter(
    relay: Server, upstream: Aimock, tag: str
) -> None:
    """It can't set the header, and appends ``lastEventId`` to the address that the page gave it."""
    message = f"steady story #{tag}"
    with Proxy(relay.port, cut_after=[1500, 1500]) as proxy:
        path = start_path(message, format="text", last_event_id="earliest")
        url = f"http://127.0.0.1:{proxy.port}{path}"
        with node("eventsource.mjs", url, TYPES, CLIENT="polyfill") as client:
            lines = lines_of(client)
        assert proxy.broken == 2
    *text, done = [line for line in lines if "data" in line]
    assert "".join(line["data"] for line in text) == upstream.story * 8
    assert done["type"] == "done"
    assert upstream.asked_for(message) == 1


def test_npm_eventsource_is_cut_before_its_first_event(
    relay: Server, upstream: Aimock, tag: str
) -> None:
    """It has no id yet: npm's takes one over with an event only. Then the key in its address is
    what names the run."""
    message = f"a little late #{tag}"
    with Proxy(relay.port, cut_after=[10]) as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        url += start_path(message, format="text", idempotency_key=f"key-{tag}")
        with node("eventsource.mjs", url, TYPES) as client:
            lines = lines_of(client)
        assert proxy.broken == 1
    *text, done = [line for line in lines if "data" in line]
    assert "".join(line["data"] for line in text) == upstream.story
    assert done["type"] == "done"
    assert lines[-1] == {"error": 204, "closed": True}
    assert upstream.asked_for(message) == 1


@pytest.mark.parametrize("message", ["truncated", "limit"])
def test_npm_eventsource_gets_failures(
    relay: Server, upstream: Aimock, tag: str, message: str
) -> None:
    """They come once; then 204. A failure before the first byte would close it: it is in band for
    clients that ask for early headers."""
    url = relay.url + start_path(f"{message} #{tag}", format="events", heartbeat="early")
    with node("eventsource.mjs", url, TYPES) as client:
        lines = lines_of(client)
    failures = [line for line in lines if line.get("type") == "failure"]
    assert len(failures) == 1
    assert json.loads(failures[0]["data"])["error"]["code"] in (
        "upstream_truncated",
        "rate_limit_exceeded",
    )
    assert lines[-1] == {"error": 204, "closed": True}
    assert upstream.asked_for(f"{message} #{tag}") == 1


@pytest.mark.parametrize("format", RESUMABLE)
def test_fetch_resumes_by_post(relay: Server, upstream: Aimock, tag: str, format: str) -> None:
    """As fetch-event-source does it: the same POST again, with its last id."""
    message = f"paced story #{tag}"
    cuts = [4000, 5000, 3000] if format == "chunks" else [1200, 1500, 1000]
    with Proxy(relay.port, cut_after=cuts, reset=True) as proxy:
        url = f"http://127.0.0.1:{proxy.port}/sse/openai_out?format={format}"
        with node("fetch-sse.mjs", url, json.dumps({"user_message": message})) as client:
            lines = lines_of(client)
        assert proxy.broken == 3
    assert lines[-1] == {"end": True}
    opened = [line for line in lines if "open" in line]
    assert [line["open"] for line in opened] == [200] * 4
    (run,) = {line["run"] for line in opened}
    with attach(relay, run, format) as stream:
        answer = read(stream, format)
    assert [line for line in lines if "data" in line] == as_dispatched(list(answer.events))
    assert (answer.text, answer.outcome) == (upstream.story * 4, "finished")
    assert upstream.asked_for(message) == 1


def test_streams_rotate(upstream: Aimock, tmp_path: Path, access_token: str, tag: str) -> None:
    """Below a platform's cap: with proper ends, and without a lost or doubled event; not `/v1`."""
    message = f"steady story #{tag}"
    settings = {"SSEFLASK_LIFETIME": "1.5", "SSEFLASK_HEARTBEAT": "0.2"}
    with run_service(tmp_path, upstream, workers=1, settings=settings) as server:
        url = server.url + start_path(message, format="text")
        with (
            node("eventsource.mjs", url, TYPES) as client,
            openai.OpenAI(
                base_url=f"{server.url}/v1", api_key=access_token, max_retries=0
            ) as openai_client,
        ):
            chunks = openai_client.chat.completions.create(
                model="m",
                messages=[{"role": "user", "content": f"steady story #{tag}-v1"}],
                stream=True,
            )
            reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices]
            lines = lines_of(client)
    assert reasons[-1] == "stop", "in one response"
    *text, done = [line for line in lines if "data" in line]
    assert "".join(line["data"] for line in text) == upstream.story * 8
    assert done["type"] == "done"
    ids = [line["lastEventId"] for line in text]
    assert len(set(ids)) == len(ids)
    assert sum("open" in line for line in lines) > 2
    assert lines[-1] == {"error": 204, "closed": True}
    assert upstream.asked_for(message) == 1
