"""The progress of a job that a POST starts, from its first event, however late anybody asks.

Run it:

    gunicorn examples.jobs:app -c python:sseflask.gunicorn_conf -w 2

    curl -X POST http://127.0.0.1:8000/jobs
    curl -N http://127.0.0.1:8000/jobs/<what the first printed>
"""

import threading
import time
import uuid

from flask import Flask, abort, url_for
from flask.typing import ResponseReturnValue

from sseflask import SSE, EventSourceResponse

app = Flask(__name__)
sse = SSE(app)


def channel_of(job: uuid.UUID) -> str:
    return f"job.{job.hex}"


@app.post("/jobs")
def start() -> ResponseReturnValue:
    job = uuid.uuid4()  # not guessable: a client that knows it may watch
    sse.publish(channel_of(job), {"percent": 0}, event="progress")
    threading.Thread(target=work, args=(job,)).start()
    return {"events": url_for("progress", job=job)}, 202


def work(job: uuid.UUID) -> None:
    result = "failed"
    try:
        for percent in range(20, 101, 20):
            time.sleep(0.2)
            sse.publish(channel_of(job), {"percent": percent}, event="progress")
        result = "finished"
    finally:
        # Whatever happened, or those who watch would wait for ever.
        sse.publish(channel_of(job), {"result": result}, event="done")


@app.get("/jobs/<uuid:job>")
def progress(job: uuid.UUID) -> EventSourceResponse:
    if not sse.history(channel_of(job), limit=1).events:
        abort(404)
    return sse.subscribe(channel_of(job), since="earliest", until="done")


@app.get("/")
def page() -> str:
    return """<!doctype html>
<title>Jobs</title>
<button>Start</button> <progress max="100" value="0"></progress> <output></output>
<script>
  document.querySelector("button").onclick = async () => {
    const { events } = await (await fetch("/jobs", { method: "POST" })).json();
    const source = new EventSource(events);
    source.addEventListener("progress", ({ data }) => {
      document.querySelector("progress").value = JSON.parse(data).percent;
    });
    source.addEventListener("done", ({ data }) => {
      document.querySelector("output").textContent = JSON.parse(data).result;
    });
  };
</script>
"""
