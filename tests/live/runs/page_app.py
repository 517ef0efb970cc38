"""The service in development mode, with a page of its own that reads a run."""

from __future__ import annotations

from sseflask.app import create_app
from tests.live.kit.notes import page

app = create_app(development=True)
app.register_blueprint(page("run.html"))
