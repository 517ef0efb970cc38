"""Chats of the AI SDK that lose their answer's stream and resume it: see tests/node/chat.mjs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.live.kit.aimock import Aimock
from tests.live.kit.proxy import Proxy
from tests.live.kit.runs import run_of, start, take
from tests.live.kit.servers import Server
from tests.live.kit.tools import node


def chat(relay: Server, token: str, port: int | None = None, **options: Any) -> dict[str, Any]:
    """What becomes of a chat."""
    url = f"http://127.0.0.1:{port or relay.port}"
    done = node("chat.mjs", json.dumps({"url": url, "token": token, **options}))
    assert not done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def kinds(parts: list[dict[str, Any]]) -> list[str]:
    """The types of a stream's parts, neighbours of one type once."""
    types = [part["type"] for part in parts]
    return [kind for n, kind in enumerate(types) if n == 0 or kind != types[n - 1]]


STARTED = {"method": "POST", "path": "sse", "status": 200}
RESUMED = {"method": "GET", "path": "runs", "status": 200}


def test_it_reads_through_heartbeats(relay: Server, access_token: str, tag: str) -> None:
    report = chat(relay, access_token, text=f"few words #{tag}")
    assert (report["texts"], report["status"]) == (["few words, and far between"], "ready")
    assert report["finishes"] == [
        {"isAbort": False, "isDisconnect": False, "isError": False, "finishReason": "stop"}
    ]
    assert len(report["run"]) == 32


@pytest.mark.parametrize("fresh", [False, True], ids=["the same chat", "a new page"])
def test_it_leaves_and_resumes(
    relay: Server, upstream: Aimock, access_token: str, tag: str, fresh: bool
) -> None:
    """Its fetch is aborted in mid-answer; the replay takes the place of what was there."""
    message = f"paced story #{tag}"
    report = chat(relay, access_token, text=message, stop="chat", after=40, resume=1, fresh=fresh)
    assert report["requests"] == [STARTED, RESUMED]
    assert report["finishes"][0]["isAbort"]
    (partial,) = report["before"]["messages"][1]["parts"][-1:]
    assert len(partial["text"]) < len(upstream.story) * 4
    assert report["texts"] == [upstream.story * 4], "one message, and all of it"
    assert report["status"] == "ready"
    assert [message["role"] for message in report["messages"]] == ["user", "assistant"]
    assert report["finishes"][-1]["finishReason"] == "stop"
    assert upstream.asked_for(message) == 1


@pytest.mark.parametrize("fresh", [False, True], ids=["the same chat", "a new page"])
def test_its_connection_breaks_and_it_resumes(
    relay: Server, upstream: Aimock, access_token: str, tag: str, fresh: bool
) -> None:
    """In the middle of the answer, then in the middle of the replay."""
    message = f"paced story #{tag}"
    with Proxy(relay.port, cut_after=[2500, 3500]) as proxy:
        report = chat(relay, access_token, proxy.port, text=message, resume=2, fresh=fresh)
        assert proxy.broken == 2
    assert report["requests"] == [STARTED, RESUMED, RESUMED]
    assert report["before"]["status"] == "error"
    assert [each["status"] for each in report["resumed"]] == ["error", "ready"]
    assert report["texts"] == [upstream.story * 4], "one message, and all of it"
    assert upstream.asked_for(message) == 1


def test_it_resumes_what_has_ended(
    relay: Server, upstream: Aimock, access_token: str, tag: str
) -> None:
    """As often as it likes: the replay is the same each time."""
    message = f"reasoning #{tag}"
    report = chat(relay, access_token, text=message, resume=2)
    assert report["requests"] == [STARTED, RESUMED, RESUMED]
    assert report["texts"] == [upstream.story]
    assert report["parts"][0] == report["parts"][1] == report["parts"][2]
    assert upstream.asked_for(message) == 1


def test_there_is_nothing_to_resume(relay: Server, access_token: str, tag: str) -> None:
    """204 is null to it: the chat is ready, and as it was. Somebody else's run is nothing too."""
    nothing = [{"method": "GET", "path": "runs", "status": 204}]
    report = chat(relay, access_token, run="0" * 32, resume=1)
    assert (report["requests"], report["status"], report["messages"]) == (nothing, "ready", [])
    assert (report["parts"], report["errors"]) == ([], [])
    with start(relay, f"paced story #{tag}", format="ui") as stream:
        take(stream, 1, "ui")
        report = chat(relay, access_token, run=run_of(stream), resume=1)
    assert (report["requests"], report["status"], report["messages"]) == (nothing, "ready", [])


def test_its_run_is_stopped(relay: Server, upstream: Aimock, access_token: str, tag: str) -> None:
    """Not an error: what there is stays, and so it is whenever it is resumed."""
    destroyed = upstream.destroyed()
    report = chat(relay, access_token, text=f"slow story #{tag}", stop="run", after=20, resume=1)
    assert report["requests"] == [STARTED, RESUMED]
    assert (report["status"], report["errors"]) == ("ready", [])
    for parts in report["parts"]:
        assert parts[-1] == {"type": "abort", "reason": "stopped"}
        assert [part["type"] for part in parts].count("abort") == 1
    (text,) = report["texts"]
    assert len(text) >= 20
    assert (upstream.story * 20).startswith(text)
    upstream.wait_for_destroyed(destroyed + 1)


def test_its_upstream_fails(relay: Server, upstream: Aimock, access_token: str, tag: str) -> None:
    """In the middle: an error, and what came before it."""
    report = chat(relay, access_token, text=f"truncated #{tag}", resume=1)
    assert report["status"] == "error"
    assert len(report["errors"]) == 2
    for parts in report["parts"]:
        assert [part["type"] for part in parts].count("error") == 1
        assert parts[-1]["errorText"] in report["errors"]
    (text,) = report["texts"]
    assert text
    assert upstream.story.startswith(text)


def test_its_upstream_refuses(relay: Server, access_token: str, tag: str) -> None:
    report = chat(relay, access_token, text=f"limit #{tag}")
    assert report["status"] == "error"
    assert report["requests"] == [{"method": "POST", "path": "sse", "status": 429}]
    assert "Rate limit reached" in report["errors"][0]
    report = chat(relay, access_token, text=f"limit #{tag}", query={"heartbeat": "early"})
    assert (report["status"], report["requests"]) == ("error", [STARTED])
    assert "Rate limit reached" in report["errors"][0]


def test_tools_and_reasoning(relay: Server, access_token: str, tag: str) -> None:
    report = chat(relay, access_token, text=f"tools #{tag}", resume=1)
    (_, answer) = report["messages"]
    called = [part for part in answer["parts"] if part["type"].startswith("tool-")]
    assert [(part["type"], part["state"], part["input"]) for part in called] == [
        ("tool-weather", "input-available", {"city": "Zürich", "unit": "°C"}),
        ("tool-clock", "input-available", {}),
    ]
    assert [part["toolCallId"] for part in called] == ["call_1", "call_2"]
    assert report["finishes"][-1]["finishReason"] == "tool-calls"
    report = chat(relay, access_token, text=f"reasoning #{tag}")
    assert kinds(report["parts"][0]) == [
        *("start", "start-step"),
        *("reasoning-start", "reasoning-delta", "reasoning-end"),
        *("text-start", "text-delta", "text-end"),
        *("finish-step", "finish"),
    ]
