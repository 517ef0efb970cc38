"""`examples/use_chat.py`: a page with a chat of the AI SDK is reloaded: tests/node/use-chat.mjs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.live.kit.clients import open_stream
from tests.live.kit.connection import fetch
from tests.live.kit.examples import example
from tests.live.kit.servers import Server
from tests.live.kit.tools import node


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("use_chat")
    with example("use_chat", "gunicorn", directory, ready="/api/chat/none") as server:
        yield server


def load(server: Server, chat: str, **options: Any) -> dict[str, Any]:
    """What a page with this chat comes to."""
    done = node("use-chat.mjs", server.url, json.dumps({"id": chat, **options}))
    assert not done.stderr
    page: dict[str, Any] = json.loads(done.stdout)
    page["requests"] = [
        (method, path.removeprefix("/api/chat"), status)
        for method, path, status in page["requests"]
    ]
    return page


def texts(page: dict[str, Any]) -> list[str]:
    """What its messages say."""
    return [
        "".join(part["text"] for part in message["parts"] if part["type"] == "text")
        for message in page["messages"]
    ]


def ids(page: dict[str, Any]) -> list[str]:
    return [message["id"] for message in page["messages"]]


def question(words: int) -> str:
    """One whose answer takes a tenth of a second for each."""
    return " ".join(f"word{number}" for number in range(words))


def answer(asked: str) -> str:
    return f"You ask: {asked} "


def test_it_is_reloaded_in_the_middle_of_an_answer(chats: Server) -> None:
    """Twice; each page has the question once, and one answer, which was made once."""
    asked = question(150)
    left = load(chats, "one", text=asked, leave=60)
    assert left["requests"] == [("GET", "/one/stream", 204), ("POST", "", 200)]
    again = load(chats, "one", leave=120)
    whole = load(chats, "one")
    for page in (again, whole):
        assert page["requests"] == [("GET", "/one/stream", 200)]
    for page in (left, again):
        mine, partial = texts(page)
        assert mine == asked
        assert answer(asked).startswith(partial)
        assert partial != answer(asked)
    assert texts(whole) == [asked, answer(asked)]
    assert (whole["status"], whole["error"]) == ("ready", None)
    assert ids(left) == ids(again) == ids(whole), "the same messages each time"


def test_it_goes_on_after_its_end(chats: Server) -> None:
    """What has ended is not resumed: it is among the messages."""
    first = load(chats, "two", text="Who")
    assert texts(first) == ["Who", answer("Who")]
    second = load(chats, "two", text="What")
    assert second["requests"] == [("GET", "/two/stream", 204), ("POST", "", 200)]
    assert texts(second) == ["Who", answer("Who"), "What", answer("What")]
    loaded = load(chats, "two")
    assert loaded["requests"] == [("GET", "/two/stream", 204)]
    assert (texts(loaded), ids(loaded)) == (texts(second), ids(second))


def test_it_is_stopped_for_all_pages(chats: Server) -> None:
    asked = question(300)
    load(chats, "three", text=asked, leave=30)
    with open_stream(chats, "/api/chat/three/stream") as other:
        other.next()
        page = load(chats, "three", stop=100)
        *_, abort, done = other.rest()
    assert page["requests"] == [("GET", "/three/stream", 200)]
    assert (page["status"], page["error"]) == ("ready", None)
    assert json.loads(abort.data or "") == {"type": "abort", "reason": "stopped"}
    assert done.data == "[DONE]"
    _, text = texts(page)
    assert answer(asked).startswith(text)
    assert text != answer(asked)
    assert texts(load(chats, "three")) == [asked, text]


def test_a_chat_is_no_pattern(chats: Server) -> None:
    for path in ("/api/chat/*", "/api/chat/**/stream", "/api/chat/a.b"):
        assert fetch(chats, path).status == 404
