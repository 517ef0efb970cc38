"""The service under test: made from a clean environment, and closed afterwards."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from unittest import mock

from flask import Flask

from sseflask.app import create_app
from sseflask.completions.upstream import Upstream
from sseflask.extension import channels_of
from sseflask.platforms import DETECTING
from sseflask.runs.runs import Runs

# Long enough for HS512 too, so that tokens can be wrong in nothing but their algorithm.
SECRET = "a secret for tests that is long enough for every one of the HMAC algorithms"
OLD_SECRET = "the secret from before that is long enough"
KEY = "sk-test-0123456789abcdef"
#: A client on this machine, which development mode trusts.
LOCAL = {"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "127.0.0.1:8000"}

_PLATFORM = (
    *("PORT", "WEB_CONCURRENCY", "REDIS_URL", "OPENAI_API_KEY", "OPENAI_BASE_URL"),
    *DETECTING,
)


@contextlib.contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Exactly these settings, whatever the machine has set."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in _PLATFORM and not name.startswith("SSEFLASK_")
    }
    with mock.patch.dict(os.environ, {**kept, **variables}, clear=True):
        yield


@contextlib.contextmanager
def service(*, development: bool = False, **variables: str) -> Iterator[Flask]:
    """The app, made with these settings."""
    logs = {"SSEFLASK_CHANNEL_LOG": ":memory:", "SSEFLASK_RUN_LOG": ":memory:"}
    with environment(**{**logs, **variables}):
        app = create_app(development=development)
    try:
        yield app
    finally:
        runs: Runs = app.extensions["sseflask.runs"]
        runs.close()
        # After those who read from it.
        upstream: Upstream = app.extensions["sseflask.upstream"]
        upstream.close()
        channels_of(app).close()
