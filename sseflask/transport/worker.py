"""The worker class by the name that deployments have in their configuration."""

from sseflask.transport.gunicorn.worker import StreamWorker

__all__ = ["StreamWorker"]
