"""The app of `flask_gevent` on gunicorn's threads: a stream is a thread for as long as it lives.

gunicorn's documentation suggests two to four threads a core, so two to four streams; here are as
many as the scenarios open at a time. A thread is started when all others are taken, so those that
a scenario does not need cost nothing.
"""

from __future__ import annotations

from benchmarks.servers.flask_gevent import app
from benchmarks.stack import Stack, gunicorn

__all__ = ["STACK", "app"]

STACK = Stack(
    name="flask_gthread",
    title="Flask generator, gunicorn -k gthread, up to 1,500 threads",
    family="wsgi",
    command=gunicorn("benchmarks.servers.flask_gthread:app", "-k", "gthread", "--threads", "1500"),
    packages=("flask", "werkzeug", "gunicorn", "openai"),
)
