"""The progress of a job with htmx: the server sends the markup that the page shows next.

    npm install htmx.org@2 htmx-ext-sse@2
    mkdir -p examples/static
    cp node_modules/htmx.org/dist/htmx.min.js examples/static/
    cp node_modules/htmx-ext-sse/dist/sse.min.js examples/static/
    flask --app examples/htmx.py run

Open http://127.0.0.1:5000/.
"""

import threading
import time
import uuid

from flask import Flask

from sseflask import SSE, EventSourceResponse

app = Flask(__name__)
sse = SSE(app)


@app.get("/")
def page() -> str:
    return """<!doctype html>
<title>Jobs</title>
<script src="/static/htmx.min.js"></script>
<script src="/static/sse.min.js"></script>
<button hx-post="/jobs" hx-target="#job">Start</button>
<div id="job"></div>
"""


@app.post("/jobs")
def start() -> str:
    job = uuid.uuid4().hex
    threading.Thread(target=work, args=(f"job.{job}",)).start()
    # sse-close, as the extension would open the stream again after its end.
    return f"""
<div hx-ext="sse" sse-connect="/jobs/{job}" sse-swap="progress" sse-close="done">Begins</div>
"""


def work(channel: str) -> None:
    for percent in range(0, 100, 20):
        markup = f'<progress max="100" value="{percent}"></progress>'
        sse.publish(channel, markup, event="progress")
        time.sleep(0.2)
    sse.publish(channel, "<strong>Finished</strong>", event="progress")
    sse.publish(channel, "", event="done")


@app.get("/jobs/<job>")
def progress(job: str) -> EventSourceResponse:
    return sse.subscribe(f"job.{job}", since="earliest", until="done")
