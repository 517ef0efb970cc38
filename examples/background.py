"""One publisher for all workers: whichever holds the lock publishes, and another takes over.

Run it:

    gunicorn examples.background:app -c python:sseflask.gunicorn_conf -w 3

    curl -N http://127.0.0.1:8000/prices
"""

import fcntl
import os
import random
import threading
import time
from pathlib import Path

from flask import Flask

from sseflask import SSE, EventSourceResponse, Failure

app = Flask(__name__)
sse = SSE(app)


@app.get("/prices")
def prices() -> EventSourceResponse:
    return sse.subscribe("prices")


@app.get("/")
def page() -> str:
    return "<script>new EventSource('/prices').onmessage = e => document.title = e.data</script>"


def publish_prices() -> None:
    folder = Path(app.instance_path)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "publisher.lock").open("w") as lock:
        while True:
            try:
                # The kernel gives the lock back when a process ends, however it ends. Waiting for
                # it would block all of a worker's greenlets, so ask each second.
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                sse.publish("prices", {"price": random.randint(90, 110), "worker": os.getpid()})
            except BlockingIOError:
                pass  # another worker publishes
            except Failure:
                app.logger.exception("A price was not published")
            time.sleep(1)


threading.Thread(target=publish_prices, daemon=True).start()
