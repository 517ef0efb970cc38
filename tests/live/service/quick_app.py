"""The service as it is deployed, but for a demo model that does not pause between two words."""

from __future__ import annotations

from flask import Flask

from sseflask.app import create_app
from sseflask.completions import demo


def create_quick_app() -> Flask:
    """For gunicorn."""
    demo.PAUSE = 0
    return create_app()
