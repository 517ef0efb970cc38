"""The worker class by the name that deployments have in their configuration."""

from sseflask.transport.gunicorn.stream_worker import StreamWorker

__all__ = ["StreamWorker"]
