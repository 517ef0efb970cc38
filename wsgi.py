"""The production form of the service, for any WSGI server: ``gunicorn wsgi:app``."""

from __future__ import annotations

from sseflask.app import create_app

app = create_app()
