"""Signals that come while a worker is being made wait until it has handlers of its own.

From its fork on a worker has the arbiter's handlers, which put a signal in a queue that the
arbiter's loop reads: a SIGTERM of that time was lost, and the arbiter waited for the whole grace
time before it killed the worker. So the signals are held back from before the fork until
`release`; the system keeps them for the process.
"""

from __future__ import annotations

import os
import signal

__all__ = ["expect", "release"]

#: What ends a worker.
_SIGNALS = (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT)

_expected = False


def expect() -> None:
    """Have signals held back from the next fork of this process on, in the child."""
    global _expected
    _expected = True


def release() -> None:
    """Let the signals through; those that were held back come at once."""
    global _expected
    _expected = False
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def _hold() -> None:
    if _expected:
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


def _forked() -> None:
    if _expected:
        release()


os.register_at_fork(before=_hold, after_in_parent=_forked)
