"""The end of a log file as it grows: one `tail` for each viewer, which ends when its viewer leaves.

Run it:

    LOG_FILE=/var/log/syslog gunicorn examples.log_tail:app -c python:sseflask.gunicorn_conf

    curl -N http://127.0.0.1:8000/log
"""

import os
import subprocess
from collections.abc import Iterator

from flask import Flask

from sseflask import SSE, EventSourceResponse

app = Flask(__name__)
SSE(app)

LOG_FILE = os.environ["LOG_FILE"]


@app.get("/log")
def log() -> EventSourceResponse:
    def lines() -> Iterator[str]:
        command = ["tail", "-n", "10", "-F", LOG_FILE]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace") as tail:
            try:
                for line in tail.stdout or ():
                    yield line.rstrip("\n")
            finally:
                tail.kill()  # not every program notices that its reader has gone

    return EventSourceResponse(lines())


@app.get("/")
def page() -> str:
    return """<!doctype html>
<title>Log</title>
<pre></pre>
<script>
  new EventSource("/log").onmessage = ({ data }) => {
    document.querySelector("pre").append(`${data}\\n`);
  };
</script>
"""
