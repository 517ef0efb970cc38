"""An application that completes with its own client, at the addresses of the service."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from flask import Flask, Response, g, request
from flask.typing import ResponseReturnValue
from openai import OpenAI

from sseflask import SSE, openai_chunks, openai_response, text_chunks
from tests.live.kit.notes import ProbeError, mark

app = Flask("completing")
app.config["SSEFLASK_HEARTBEAT"] = 1.0
app.config["SSEFLASK_RUN_LOG"] = os.environ["PROBE_RUNS"]
sse = SSE(app)
client = OpenAI(max_retries=0)


@app.get("/healthz")
def healthz() -> ResponseReturnValue:
    return {"message": "healthy"}


@app.post("/sse/openai_out")
def complete() -> Response:
    asked = request.get_json()
    message, options = asked.pop("user_message"), {"owner": request.headers.get("X-User"), **asked}
    if options.pop("api", "chat") == "responses":
        return sse.run(openai_response(client, message, model="m"), **options)
    messages: list[dict[str, str]] = [{"role": "user", "content": message}]
    source = openai_chunks(client, messages, model="m")  # type: ignore[arg-type]  # as JSON has it
    return sse.run(source, **options)


@app.post("/start/<message>")
def start(message: str) -> ResponseReturnValue:
    source = openai_chunks(client, [{"role": "user", "content": message}], model="m")
    return {"run": sse.start(source)}


@app.post("/texts/<tag>")
def texts(tag: str) -> Response:
    """Pieces of text that see the view's contexts; the last item says what comes then."""
    pieces, then = request.get_json()
    g.mine = "g"

    def said() -> Iterator[str]:
        try:
            yield f"{request.path} {g.mine}"
            yield from pieces
            if then == "wait":
                mark(tag, "waits")
                time.sleep(600)
            elif then == "go on":
                mark(tag, "waits")
                while True:
                    time.sleep(0.05)
                    yield "."
            elif then == "fail":
                raise ProbeError("secret detail")
        finally:
            mark(tag, "finally")

    return sse.run(text_chunks(said(), model="mine"), format=request.args.get("format"))


@app.get("/runs/<run>")
def view(run: str) -> Response:
    return sse.attach(run, owner=request.headers.get("X-User"), format=request.args.get("format"))


@app.delete("/runs/<run>")
def stop(run: str) -> ResponseReturnValue:
    return {"id": run, "status": sse.stop(run, owner=request.headers.get("X-User"))}


@app.get("/results/<run>")
def result(run: str) -> ResponseReturnValue:
    found = sse.result(run, format="text")
    return {"state": found.state, "text": [event.data for event in found.events]}
