"""A report that takes long, and goes on without its readers. They lose nothing of it.

    gunicorn examples.report:app -c python:sseflask.gunicorn_conf -w 2

Open http://127.0.0.1:8000/, start one, and reload the page, or cut its network for a moment.
"""

import time
from collections.abc import Generator
from importlib.resources import files

from flask import Flask, Response, request
from flask.typing import ResponseReturnValue

from sseflask import SSE

app = Flask(__name__)
sse = SSE(app)
SCRIPT = files("sseflask") / "static" / "sse.js"


def report() -> Generator[dict[str, int], None, dict[str, int]]:
    total = 0
    for region in range(1, 31):
        time.sleep(0.1)  # a query that takes long
        total += region
        yield {"region": region}
    return {"total": total}


@app.post("/reports")
def begin() -> Response:
    # A browser that has lost the answer sends the same request again.
    return sse.run(report(), idempotency_key=request.headers.get("Idempotency-Key"))


@app.get("/reports/<run_id>")
def read(run_id: str) -> Response:
    return sse.attach(run_id)  # who knows the id may: it can't be guessed


@app.delete("/reports/<run_id>")
def stop(run_id: str) -> ResponseReturnValue:
    return {"state": sse.stop(run_id)}


@app.get("/sse.js")
def sse_js() -> Response:
    return Response(SCRIPT.read_bytes(), mimetype="text/javascript")


@app.get("/")
def page() -> str:
    return """<!doctype html>
<title>A report</title>
<button id="start">Start</button> <button id="stop">Stop</button>
<p id="end"></p>
<ol></ol>
<script type="module">
  import { stream } from "/sse.js";

  const kept = sessionStorage; // what a reload leaves
  const list = document.querySelector("ol");
  const end = document.querySelector("#end");
  const attach = (run) => `/reports/${run}`;

  function follow(url, method) {
    list.replaceChildren();
    end.textContent = "";
    return stream(url, {
      method,
      attach, // what breaks goes on there, after the last event
      onOpen: (response) => (kept.run = response.headers.get("X-Run-Id")),
      onEvent({ data }) {
        const item = document.createElement("li");
        item.textContent = JSON.parse(data).region;
        list.append(item);
      },
      onDone({ status, result } = {}) {
        end.textContent = result ? `Total: ${result.total}` : status;
      },
      onFailure: ({ message }) => (end.textContent = message),
    });
  }

  document.querySelector("#start").onclick = () => follow("/reports", "POST");
  document.querySelector("#stop").onclick = () => fetch(attach(kept.run), { method: "DELETE" });
  if (kept.run) follow(attach(kept.run), "GET");
</script>
"""
