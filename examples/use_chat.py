"""What `useChat({ id, messages, resume: true })` of the AI SDK asks of a server.

    gunicorn examples.use_chat:app -c python:sseflask.gunicorn_conf -w 2

    curl http://127.0.0.1:8000/api/chat/one    (the messages that a page begins with)

Needs sseflask[openai].
"""

import re
import time
from collections.abc import Iterator
from typing import Any

from flask import Flask, Response, abort, request
from flask.typing import ResponseReturnValue

from sseflask import SSE, ChannelEvent, text_chunks

app = Flask(__name__)
sse = SSE(app)

Message = dict[str, Any]


def answer(messages: list[Message]) -> Iterator[str]:
    """In the place of a model, or of any library that gives text piece by piece."""
    asked = " ".join(part["text"] for part in messages[-1]["parts"] if part["type"] == "text")
    for word in ["You", "ask:", *asked.split()]:
        time.sleep(0.1)
        yield f"{word} "


def channel_of(chat: str) -> str:
    """Where a chat is kept: each event is a message, and the run that answers it."""
    if not re.fullmatch(r"[\w-]{1,64}", chat, re.ASCII):
        abort(404)
    return f"chat.{chat}"


def turns(chat: str) -> list[Any]:
    events: list[ChannelEvent] = sse.history(channel_of(chat), limit=1000).events
    return [app.json.loads(event.data) for event in events]


@app.post("/api/chat")
def send() -> Response:
    asked = request.get_json()
    channel = channel_of(asked["id"])
    run = sse.start(text_chunks(answer(asked["messages"])))
    sse.publish(channel, {"message": asked["messages"][-1], "run": run})
    return sse.attach(run, format="ui")


@app.get("/api/chat/<chat>/stream")
def resume(chat: str) -> ResponseReturnValue:
    """The answer that is being written, from its first word; 204 if there is none."""
    last = turns(chat)[-1:]
    if not last or sse.result(last[0]["run"]).state != "running":
        return "", 204
    return sse.attach(last[0]["run"], format="ui")


@app.delete("/api/chat/<chat>/stream")
def stop(chat: str) -> ResponseReturnValue:
    """What the chat's own stop() can't be where one resumes: it only leaves the stream."""
    return {"states": [sse.stop(turn["run"]) for turn in turns(chat)[-1:]]}


@app.get("/api/chat/<chat>")
def messages(chat: str) -> list[Message]:
    """All but the answer that is being written: `resume` has it."""
    found = []
    for turn in turns(chat):
        found.append(turn["message"])
        result = sse.result(turn["run"], format="events")
        if result.state != "running":
            text = "".join(event.json()["text"] for event in result.events if event.event == "text")
            part = {"type": "text", "text": text}
            found.append({"id": f"msg-{result.id}", "role": "assistant", "parts": [part]})
    return found
