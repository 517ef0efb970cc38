"""What the worker class does to its own process, in an interpreter of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("before", "expected"),
    [("", "(10000, 10, 100)"), ("gc.set_threshold(5000, 7, 7)", "(5000, 7, 7)")],
)
def test_the_collector_is_held_back_unless_the_application_has_set_it(
    before: str, expected: str
) -> None:
    program = (
        "import gc\n"
        "import logging\n"
        "from types import SimpleNamespace\n"
        "from gunicorn.config import Config\n"
        "from sseflask.transport.gunicorn.worker_start import collect_less_often, prepare_process\n"
        "collect_less_often()\n"
        f"{before}\n"
        "log = logging.getLogger('log')\n"
        "prepare_process(Config(), SimpleNamespace(error_log=log, access_log=log))\n"
        "print(gc.get_threshold(), gc.get_freeze_count() > 1000)\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert shown.stdout.strip() == f"{expected} True"


@pytest.mark.parametrize(
    ("options", "believed"),
    [("", "[]"), ("c.set('forwarder_headers', 'SCRIPT_NAME')", "['SCRIPT_NAME']")],
)
def test_clients_do_not_say_what_the_path_is_unless_the_operator_wants_it(
    options: str, believed: str
) -> None:
    program = (
        "from gunicorn.config import Config\n"
        "from sseflask.transport.gunicorn.worker_start import _distrust_path_headers\n"
        f"c = Config()\n{options}\n"
        "_distrust_path_headers(c)\n"
        "print(c.forwarder_headers)\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert shown.stdout.strip() == believed


def test_the_application_is_loaded_with_the_collector_held_back() -> None:
    program = (
        "import gc\n"
        "from gunicorn.workers.ggevent import GeventWorker\n"
        "from sseflask.transport.gunicorn.stream_worker import StreamWorker\n"
        "GeventWorker.load_wsgi = lambda self: print(gc.get_threshold())\n"
        "worker = StreamWorker.__new__(StreamWorker)\n"
        "worker.wsgi = None\n"
        "worker.load_wsgi()\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert shown.stdout.strip() == "(10000, 10, 100)"
