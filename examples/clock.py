"""A clock that goes on where the client was, and ends.

    flask --app examples/clock.py run
    gunicorn examples.clock:app -c python:sseflask.gunicorn_conf

Open http://127.0.0.1:5000/ (8000 with gunicorn), and restart the server while the clock ticks:
the page shows each tick once, then says that the clock has ended.
"""

import time
from collections.abc import Iterator

from flask import Flask
from flask.typing import ResponseReturnValue

from sseflask import SSE, Event, EventSourceResponse, last_event_id

app = Flask(__name__)
SSE(app)

TICKS = 60


@app.get("/clock")
def clock() -> ResponseReturnValue:
    first = max(0, last_event_id(type=int, default=-1) + 1)
    if first >= TICKS:
        return "", 204  # the only answer after which an EventSource does not come back

    def ticks() -> Iterator[Event]:
        for number in range(first, TICKS):
            yield Event(time.strftime("%H:%M:%S"), id=number)
            time.sleep(1)

    return EventSourceResponse(ticks())


@app.get("/")
def page() -> str:
    return """<!doctype html>
<title>Clock</title>
<ol start="0"></ol>
<p>It ticks.</p>
<script>
  const source = new EventSource("/clock");
  source.onmessage = ({ data }) => {
    const item = document.createElement("li");
    item.textContent = data;
    document.querySelector("ol").append(item);
  };
  source.onerror = () => {
    if (source.readyState === EventSource.CLOSED) {
      document.querySelector("p").textContent = "It has ended.";
    }
  };
</script>
"""
