"""Signals that come while a worker is made wait until it has handlers of its own.

From its fork on a worker has the arbiter's handlers, which put a signal in a queue that only the
arbiter's loop reads. So a SIGTERM of that time would be lost, and the arbiter would wait for the
whole grace time before it kills the worker. The signals are therefore blocked from before the fork
until `release`; the system keeps them for the process. If gunicorn did so itself, blocking them
here would do no harm.
"""

from __future__ import annotations

import os
import signal

__all__ = ["hold_from_fork", "release"]

#: What ends a worker.
_SIGNALS = (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT)

_holds = False


def hold_from_fork() -> None:
    """Have signals held back from the next fork of this process on, in the child."""
    global _holds
    _holds = True


def release() -> None:
    """Let the signals through; those that were held back come at once."""
    global _holds
    _holds = False
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def _before_fork() -> None:
    if _holds:
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


def _after_fork_in_parent() -> None:
    if _holds:
        release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent)
