"""The app of `sseflask_worker` on gunicorn's plain gevent worker, with sseflask's drain."""

from __future__ import annotations

from benchmarks.servers import sseflask_worker
from benchmarks.servers.sseflask_worker import app
from benchmarks.stack import Stack, gunicorn

__all__ = ["STACK", "app"]

STACK = Stack(
    name="sseflask_gevent",
    title="Flask + sseflask, gunicorn -k gevent",
    family="sseflask",
    command=gunicorn(
        "benchmarks.servers.sseflask_gevent:app",
        *("-k", "gevent", "-c", "sseflask/gunicorn_conf.py"),
    ),
    packages=("sseflask", "flask", "werkzeug", "gunicorn", "gevent", "openai"),
    environment=sseflask_worker.STACK.environment,
    routes=sseflask_worker.STACK.routes,
)
