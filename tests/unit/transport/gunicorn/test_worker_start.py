"""What our workers do at their start: signals before their handlers, gunicorn's settings."""

from __future__ import annotations

import subprocess
import sys

from gunicorn.config import Config
from gunicorn.glogging import Logger

from sseflask.transport.gunicorn import worker_start


def test_a_signal_waits_for_the_workers_handlers() -> None:
    program = (
        "import os, signal\n"
        "from sseflask.transport.gunicorn import worker_start\n"
        "lost, got = [], []\n"
        "signal.signal(signal.SIGTERM, lambda *_: lost.append(1))\n"
        "worker_start.hold_signals_from_fork()\n"
        "child = os.fork()\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "if child:\n"
        "    assert lost == [1], 'the arbiter has it at once'\n"
        "    assert os.waitpid(child, 0)[1] == 0\n"
        "else:\n"
        "    assert lost == []\n"
        "    signal.signal(signal.SIGTERM, lambda *_: got.append(1))\n"
        "    worker_start.release_signals()\n"
        "    assert (lost, got) == ([], [1])\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_settings_are_gunicorns_and_can_be_changed() -> None:
    cfg, theirs = Config(), Config()
    worker_start.keep_settings(cfg)
    for name in theirs.settings:
        assert getattr(cfg, name) == getattr(theirs, name), name
    for name, value in [("keepalive", "7"), ("bind", "192.0.2.1:80"), ("certfile", "a.pem")]:
        cfg.set(name, value)
        theirs.set(name, value)
    assert (cfg.keepalive, cfg.address, bool(cfg.is_ssl)) == (7, [("192.0.2.1", 80)], True)
    assert str(cfg) == str(theirs)
    assert Logger(cfg).access_log_enabled == Logger(theirs).access_log_enabled
