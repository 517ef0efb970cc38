"""The kinds of servers that the probe runs on."""

from __future__ import annotations

import pytest

#: Both own the socket: leaving is noticed at once, bursts are coalesced, streams are drained.
GEVENT = ["gunicorn-worker", "gunicorn-gevent"]
#: Any WSGI server will do.
PORTABLE = ["gunicorn-gthread", "flask", "waitress"]
SERVERS = GEVENT + PORTABLE

on_every_server = pytest.mark.parametrize("server", SERVERS, indirect=True)
on_gevent = pytest.mark.parametrize("server", GEVENT, indirect=True)
on_portable = pytest.mark.parametrize("server", PORTABLE, indirect=True)
