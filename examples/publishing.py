"""Events from outside the web server: from a Celery task, from cron, from `flask shell`.

    flask --app examples/publishing.py run
    celery -A examples.publishing:celery worker
    python examples/publishing.py
    flask --app examples/publishing.py shell

    curl -N http://127.0.0.1:5000/reports/events    (in one terminal)
    curl -X POST http://127.0.0.1:5000/reports      (Celery makes a report)

The third is what cron runs. In the shell: sse.publish("reports", {"report": "by hand"})
Needs celery[redis] and a Redis server, or another broker: CELERY_BROKER_URL=amqp://...
"""

import time
from pathlib import Path

from celery import Celery
from flask import Flask
from flask.typing import ResponseReturnValue

from sseflask import SSE, EventSourceResponse

FOLDER = Path(__file__).resolve().parent / "instance"

app = Flask(__name__)
# All of them have to use one file. Flask's instance folder depends on how an application is
# started, and cron starts in another folder.
app.config["SSEFLASK_CHANNEL_LOG"] = str(FOLDER / "reports.sqlite3")
sse = SSE(app)
celery = Celery(
    "reports",
    broker="redis://127.0.0.1",
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
)


@celery.task(name="make_report")  # flask and celery know this file as two modules
def make_report() -> None:
    sse.publish("reports", {"report": "on demand", "state": "begun"})
    time.sleep(1)
    sse.publish("reports", {"report": "on demand", "state": "ready"})


@app.post("/reports")
def order_report() -> ResponseReturnValue:
    make_report.delay()
    return "", 202


@app.get("/reports/events")
def report_events() -> EventSourceResponse:
    return sse.subscribe("reports")


@app.shell_context_processor
def shell_names() -> dict[str, object]:
    return {"sse": sse}


if __name__ == "__main__":
    sse.publish("reports", {"report": "of the night", "state": "ready"})
