"""A chat room with Datastar: all that was said, then what is said, for everybody who is there.

    mkdir -p examples/static
    cp datastar.js examples/static/
    gunicorn examples.datastar:app -c python:sseflask.gunicorn_conf

Open http://127.0.0.1:8000/ in two windows. `datastar.js` is the bundle of a release, this one:
https://github.com/starfederation/datastar/blob/v1.0.4/bundles/datastar.js
"""

from flask import Flask, request
from flask.typing import ResponseReturnValue
from markupsafe import escape

from sseflask import SSE, EventSourceResponse

app = Flask(__name__)
sse = SSE(app)


@app.get("/")
def page() -> str:
    # retry: Datastar takes the end of a stream for final otherwise, even at a deploy.
    return """<!doctype html>
<title>Room</title>
<script type="module" src="/static/datastar.js"></script>
<ul id="room" data-init="@get('/room', {retry: 'always', retryMaxCount: Infinity})"></ul>
<form data-on:submit__prevent="@post('/room')">
  <input data-bind:text aria-label="Message">
  <button>Send</button>
</form>
"""


@app.get("/room")
def room() -> EventSourceResponse:
    return sse.subscribe("room", since="earliest")


@app.post("/room")
def say() -> ResponseReturnValue:
    # On one line: what follows a line break would be an instruction to Datastar.
    text = " ".join(str(request.get_json()["text"]).split())
    patch = f"selector #room\nmode append\nelements <li>{escape(text)}</li>"
    sse.publish("room", patch, event="datastar-patch-elements")
    return {"text": ""}  # a new value for the signal: the field is empty again
