"""What each of our workers does to its process, and for the application, when it starts.

From its fork on a worker has the arbiter's signal handlers, which put a signal in a queue that only
the arbiter's loop reads. So a SIGTERM of that time would be lost, and the arbiter would wait for
the whole grace time. The signals are therefore blocked from before the fork until
`release_signals`; the system keeps them for the process. If gunicorn did so itself, this would do
no harm.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from gunicorn.http.parser import RequestParser

from sseflask.logs.masking import guard
from sseflask.transport.gunicorn.plain_request import PlainRequest

#: Called in the worker's main greenlet once its application has been loaded; must not block.
on_worker_start: list[Callable[[], object]] = []

#: Arguments of `gc.set_threshold`: Python's defaults (before 3.13; from 3.13 on), and ours. Ours
#: collects the oldest generation once in some millions of objects.
_DEFAULT_THRESHOLDS, _THRESHOLD = ((700, 10, 10), (2000, 10, 10)), (10_000, 10, 100)

#: Seconds for which the loop may go on when a native thread wants the interpreter. With Python's
#: default, 5 ms, a busy loop delays each published event by 5 ms before it is stored, and by 5 ms
#: after.
_SWITCH_SECONDS = 0.001

#: What ends a worker.
_SIGNALS = (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT)

_holds = False


def collect_less_often() -> None:
    """Before the application is loaded: that goes faster, and what it sets itself stays."""
    if gc.get_threshold() in _DEFAULT_THRESHOLDS:
        gc.set_threshold(*_THRESHOLD)


def prepare_process(cfg: Any, log: Any) -> None:
    """After the application has been loaded, before the first connection."""
    _distrust_path_headers(cfg)
    keep_settings(cfg)
    RequestParser.mesg_class = PlainRequest
    # Clients must not forge lines of gunicorn's logs, also without our configuration.
    for logger in (logging.getLogger("sseflask"), log.error_log, log.access_log):
        guard(logger)
    # Every stream is some hundred objects that live as long as it does. By its own rules the
    # collector goes through all of them, and through the application's code, each time they have
    # grown by a quarter. While 1,000 streams were opened that took two pauses, of 50 and 77 ms.
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH_SECONDS))


def _distrust_path_headers(cfg: Any) -> None:
    """Let gunicorn take the path of a request from its first line alone.

    By default it also believes SCRIPT_NAME and PATH_INFO headers from 127.0.0.1. Proxies there pass
    on their clients' headers, and a request with these gets past what the proxy forbids. What the
    operator has set stays.
    """
    if cfg.forwarder_headers == cfg.settings["forwarder_headers"].default.split(","):
        cfg.set("forwarder_headers", "")


def keep_settings(cfg: Any) -> None:
    """Make gunicorn's settings plain attributes: it looks up dozens of them for each request.

    A hook may still change them with ``cfg.set``.
    """
    kept, set_setting = vars(cfg), cfg.set

    def keep(name: str) -> None:
        if not hasattr(type(cfg), name):  # some are properties, made of several settings
            kept[name] = cfg.settings[name].get()

    def set_and_keep(name: str, value: Any) -> None:
        set_setting(name, value)
        keep(name)

    for name in cfg.settings:
        keep(name)
    kept["set"] = set_and_keep


def hold_signals_from_fork() -> None:
    """Hold signals back in the child from the next fork of this process on."""
    global _holds
    _holds = True


def release_signals() -> None:
    """Let the signals through; those that were held back come at once."""
    global _holds
    _holds = False
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def _before_fork() -> None:
    if _holds:
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


def _after_fork_in_parent() -> None:
    if _holds:
        release_signals()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent)
