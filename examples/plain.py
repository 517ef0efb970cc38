"""A plain generator as an event stream. Its ASGI twin, `plain_asgi.py`, sends the same bytes.

Run it:

    flask --app examples/plain.py run
    gunicorn examples.plain:app -c python:sseflask.gunicorn_conf

    curl -N -X POST http://127.0.0.1:5000/sse/v1    (8000 with gunicorn)
"""

import time
from collections.abc import Iterator

from flask import Flask, Response

from sseflask import SSE

app = Flask(__name__)
SSE(app)  # the views stay as they are


@app.route("/sse/v1", methods=["GET", "POST"])
def counter() -> Response:
    def events() -> Iterator[str]:
        for number in range(10):
            yield f"data: {number}\n\n"
            time.sleep(0.1)

    return Response(events(), mimetype="text/event-stream")


@app.route("/sse/no_sse", methods=["GET", "POST"])
def no_sse() -> dict[str, str]:
    return {"message": "Hello World"}
