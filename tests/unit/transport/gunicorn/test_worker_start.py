"""A signal that comes between a worker's fork and its own handlers."""

from __future__ import annotations

import subprocess
import sys


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
