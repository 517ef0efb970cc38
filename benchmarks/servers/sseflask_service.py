"""The service itself, as it is deployed: its counter, its relay of a completion, its channels."""

from __future__ import annotations

from benchmarks.publishing import LOG_VARIABLE
from benchmarks.stack import Stack, gunicorn

STACK = Stack(
    name="sseflask_service",
    title="the sseflask service",
    family="sseflask",
    # Development mode, because then a loopback client needs no token; nothing else differs.
    command=gunicorn(
        "sseflask.app:create_app(development=True)", "-c", "sseflask/gunicorn_conf.py"
    ),
    packages=("sseflask", "flask", "werkzeug", "gunicorn", "gevent", "openai"),
    # Where a scenario has channels it names a file.
    environment={LOG_VARIABLE: ":memory:"},
    routes={
        "relay": "/sse/openai_out?model=scripted",
        "counter": "/sse/v1?count={count}&interval={interval}",
        "subscribe": "/channels/{channel}",
        "publish": "/channels/{channel}",
        "publish_array": "/channels/{channel}",
        "health": "/healthz",
    },
)
