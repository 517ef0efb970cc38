"""What an agent of PydanticAI says, as a run: its client may come back, to any worker.

    OPENAI_API_KEY=sk-... gunicorn examples.pydantic_ai_stream:app -k gthread --threads 20 -w 2

In threads: its synchronous methods run an event loop of asyncio, of which a thread has one at a
time, and all greenlets of gevent are in one thread.

Open http://127.0.0.1:8000/. Needs pydantic-ai-slim[openai].
"""

import os
from collections.abc import Iterator

from flask import Flask, Response, request
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel

from sseflask import SSE, text_chunks

app = Flask(__name__)
sse = SSE(app)
MODEL = os.environ.get("OPENAI_MODEL", "gpt-5-mini")
agent = Agent(OpenAIChatModel(MODEL), instructions="Answer in one sentence.")


def words(question: str) -> Iterator[str]:
    with agent.run_stream_sync(question) as result:
        yield from result.stream_text(delta=True)


@app.get("/answers")
def answers() -> Response:
    texts = words(request.args["question"])
    return sse.run(text_chunks(texts), on_disconnect=30, format="text")


@app.delete("/answers/<run>")
def stop(run: str) -> dict[str, str]:
    return {"state": sse.stop(run)}


@app.get("/")
def page() -> str:
    return """<!doctype html>
<title>Answers</title>
<form><input name="question" aria-label="Question"> <button>Ask</button></form>
<p></p>
<script>
  const form = document.querySelector("form");
  const answer = document.querySelector("p");
  form.addEventListener("submit", (submitted) => {
    submitted.preventDefault();
    answer.textContent = "";
    // It comes back by itself, with the id of the last event: nothing is asked twice.
    const source = new EventSource(`/answers?${new URLSearchParams(new FormData(form))}`);
    source.onmessage = ({ data }) => answer.append(data);
    source.addEventListener("done", () => source.close());
    source.addEventListener("failure", () => source.close());
  });
</script>
"""
