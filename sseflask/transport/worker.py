"""The gunicorn worker class: gevent's, with streams that end properly when the worker does.

gunicorn imports this module in the arbiter, before monkey-patching: it must import nothing
that touches ssl or threading beyond what gunicorn and gevent do themselves.
"""

from __future__ import annotations

from types import FrameType

import gevent
from gunicorn.workers.ggevent import GeventWorker

__all__ = ["StreamWorker"]


class StreamWorker(GeventWorker):
    """``gunicorn -k sseflask.transport.worker.StreamWorker``: drains streams by itself."""

    _quitting = False

    def run(self) -> None:
        """Serve until told to stop."""
        from sseflask.transport import drain

        drain.install(self)
        super().run()

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        """Ctrl-C: gunicorn would cut every stream 0.1 s from now."""
        # On a terminal SIGINT comes from there, and SIGQUIT from the arbiter right behind it.
        if not self._quitting:
            self._quitting = True
            # Not in the signal handler: it may run in any greenlet, the hub's included.
            gevent.spawn(self._drain_and_quit, sig, frame)

    def _drain_and_quit(self, sig: int, frame: FrameType | None) -> None:
        from sseflask.transport import drain

        drain.interrupt(self)
        super().handle_quit(sig, frame)
