"""The service itself, as it is deployed: its counter, its completions, its channels."""

from __future__ import annotations

from benchmarks.publishing import LOG_VARIABLE, RUN_LOG_VARIABLE
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
    environment={
        # Where a scenario has channels or completions it names files.
        LOG_VARIABLE: ":memory:",
        RUN_LOG_VARIABLE: ":memory:",
        # Everything here comes from one client.
        "SSEFLASK_RATE_LIMIT": "off",
        "SSEFLASK_MAX_RUNS": "1000",
    },
    routes={
        "relay": "/sse/openai_out?model=scripted",
        "run": "/runs/{run}",
        "counter": "/sse/v1?count={count}&interval={interval}",
        "subscribe": "/channels/{channel}",
        "publish": "/channels/{channel}",
        "publish_array": "/channels/{channel}",
        "health": "/healthz",
    },
)
