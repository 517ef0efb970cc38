"""A chat with a model through OpenAI's client: its words as they come, until the reader leaves.

    OPENAI_API_KEY=sk-... gunicorn examples.chat:app -c python:sseflask.gunicorn_conf

Open http://127.0.0.1:8000/. Needs openai. Another server: OPENAI_BASE_URL=http://127.0.0.1:11434/v1
"""

import os
from collections.abc import Iterator
from importlib.resources import files

from flask import Flask, Response, request
from flask.typing import ResponseReturnValue
from openai import APIError, OpenAI

from sseflask import SSE, Event, EventSourceResponse

app = Flask(__name__)
SSE(app)
client = OpenAI()
MODEL = os.environ.get("OPENAI_MODEL", "gpt-5-mini")
SCRIPT = files("sseflask") / "static" / "sse.js"


@app.post("/chat")
def chat() -> EventSourceResponse:
    question = request.form["message"]

    def answer() -> Iterator[Event]:
        # The block is left when the reader leaves: the connection closes, the model stops.
        with client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": question}], stream=True
        ) as stream:
            for chunk in stream:
                if chunk.choices and chunk.choices[0].delta.content:
                    yield Event(chunk.choices[0].delta.content)
        yield Event("", event="done")

    return EventSourceResponse(answer())


@app.errorhandler(APIError)
def failed(error: APIError) -> ResponseReturnValue:
    """An error before the first word; one after it ends the stream with a `failure` event."""
    app.logger.error("The model gave no answer: %s", error)
    return {"error": {"message": "The model gives no answer.", "code": "no_answer"}}, 502


@app.get("/sse.js")
def sse_js() -> Response:
    return Response(SCRIPT.read_bytes(), mimetype="text/javascript")


@app.get("/")
def page() -> str:
    return """<!doctype html>
<title>Chat</title>
<form><input name="message" aria-label="Message" autofocus> <button>Send</button></form>
<p></p>
<script type="module">
  import { stream } from "/sse.js";

  const form = document.querySelector("form");
  const answer = document.querySelector("p");
  const failed = (error) => answer.append(` (${error.message})`);
  form.addEventListener("submit", (submitted) => {
    submitted.preventDefault();
    answer.textContent = "";
    const abort = new AbortController();
    stream("/chat", {
      method: "POST",
      body: new FormData(form),
      signal: abort.signal,
      onEvent: ({ data }) => answer.append(data),
      onFailure: failed,
      onRetry: ({ cause }) => {
        abort.abort(); // to ask again would be another answer, paid for again
        failed(cause);
      },
    });
  });
</script>
"""
