"""The service itself, as it is deployed: its counter, its completions, its channels."""

from __future__ import annotations

import secrets
import time

from benchmarks.published_events import LOG_VARIABLE, RUN_LOG_VARIABLE
from benchmarks.stack import Stack, gunicorn
from sseflask.auth.tokens import sign

_DAY = 86_400.0
_SECRET = secrets.token_hex()
_TOKEN = sign(_SECRET, "benchmark", time.time() + _DAY, publish=["**"], complete=True)
_PUBLISH = f"/channels/{{channel}}?access_token={_TOKEN}"

STACK = Stack(
    name="sseflask_service",
    title="the sseflask service",
    family="sseflask",
    command=gunicorn("sseflask.app:create_app()", "-c", "sseflask/gunicorn_conf.py"),
    packages=("sseflask", "flask", "werkzeug", "gunicorn", "gevent", "openai"),
    environment={
        # Where a scenario has channels or completions it names files.
        LOG_VARIABLE: ":memory:",
        RUN_LOG_VARIABLE: ":memory:",
        "SSEFLASK_SECRET": _SECRET,
        "SSEFLASK_PUBLIC_CHANNELS": "**",
        # Everything here comes from one client.
        "SSEFLASK_RATE_LIMIT": "off",
        "SSEFLASK_MAX_RUNS": "1000",
    },
    routes={
        "relay": f"/sse/openai_out?model=scripted&access_token={_TOKEN}",
        "run": f"/runs/{{run}}?access_token={_TOKEN}",
        "counter": "/sse/v1?count={count}&interval={interval}",
        "subscribe": "/channels/{channel}",
        "resume": "/channels/{channel}",
        "publish": _PUBLISH,
        "publish_array": _PUBLISH,
        "health": "/healthz",
    },
)
