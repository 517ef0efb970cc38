"""The service itself, as it is deployed: its counter, and its relay of an OpenAI stream."""

from __future__ import annotations

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
    routes={
        "relay": "/sse/openai_out?model=scripted",
        "counter": "/sse/v1?count={count}&interval={interval}",
    },
)
