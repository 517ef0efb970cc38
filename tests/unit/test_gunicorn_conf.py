"""gunicorn's configuration, read the way gunicorn's arbiter reads it: in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.service import KEY, SECRET, environment

ROOT = Path(__file__).parents[2]
PROGRAM = """
import json
import logging
import resource
import runpy
import sys
from types import SimpleNamespace

limit = json.loads(sys.argv[1])
if limit:
    resource.setrlimit(resource.RLIMIT_NOFILE, limit)
if not json.loads(sys.argv[2]):
    sys.modules["pydantic_settings"] = sys.modules["pythonjsonlogger"] = None
conf = runpy.run_path("sseflask/gunicorn_conf.py")
again = runpy.run_path("sseflask/gunicorn_conf.py")
written = []
for name in ("gunicorn.error", "gunicorn.access"):
    logger = logging.getLogger(name)
    logger.propagate = False
    logger.setLevel("INFO")
    handler = logging.Handler()
    handler.emit = lambda record: written.append(record.getMessage())
    logger.addHandler(handler)
    for text in json.loads(sys.argv[3]):
        logger.error("%s", text)
if "when_ready" in conf:
    log = logging.getLogger("gunicorn.error")
    conf["when_ready"](SimpleNamespace(cfg=SimpleNamespace(workers=3), log=log))
print(json.dumps({
    "written": written,
    "filters": [len(logging.getLogger(n).filters) for n in ("gunicorn.error", "gunicorn.access")],
    "limit": resource.getrlimit(resource.RLIMIT_NOFILE),
    "modules": sorted(sys.modules),
    **{key: value for key, value in conf.items() if type(value) in (int, str, bool)},
}))
"""


def read(
    *,
    limit: tuple[int, int] | None = None,
    installed: bool = True,
    logged: tuple[str, ...] = (),
    **variables: str,
) -> subprocess.CompletedProcess[str]:
    with environment(**variables):
        given = [json.dumps(value) for value in (limit, installed, logged)]
        return subprocess.run(
            [sys.executable, "-W", "error", "-c", PROGRAM, *given],
            cwd=ROOT,
            env=dict(os.environ),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def conf(**how: Any) -> dict[str, Any]:
    done = read(**how)
    assert done.returncode == 0, done.stderr
    made: dict[str, Any] = json.loads(done.stdout)
    return made


@pytest.mark.parametrize(
    ("variables", "bind", "workers"),
    [
        ({}, "127.0.0.1:8000", 1),
        ({"PORT": "", "WEB_CONCURRENCY": ""}, "127.0.0.1:8000", 1),
        ({"PORT": "5000", "WEB_CONCURRENCY": "3"}, "0.0.0.0:5000", 3),
    ],
)
def test_what_the_platform_says(variables: dict[str, str], bind: str, workers: int) -> None:
    made = conf(**variables)
    assert (made["bind"], made["workers"]) == (bind, workers)


_FOUND = "DYNO is set: defaults fit the platform heroku (see sseflask config)"


@pytest.mark.parametrize(
    ("how", "grace", "keepalive", "said"),
    [
        # Heroku's router reuses a connection that has been idle for 90 s.
        ({"DYNO": "web.1", "SSEFLASK_GRACE": "7"}, 7, 95, [_FOUND]),
        ({"DYNO": "web.1", "SSEFLASK_PLATFORM": "fly"}, 4, 5, []),
        # An application of one's own, without the service.
        ({"K_SERVICE": "app", "installed": False}, 8, 5, []),
    ],
)
def test_what_fits_the_platform(
    how: dict[str, Any], grace: int, keepalive: int, said: list[str]
) -> None:
    made = conf(WEB_CONCURRENCY="3", **how)
    assert (made["graceful_timeout"], made["keepalive"]) == (grace, keepalive)
    assert made["written"] == said


def test_streams_and_their_end() -> None:
    made = conf()
    assert made["worker_class"] == "sseflask.transport.worker.StreamWorker"
    # SIGKILL follows SIGTERM by 30 s on most platforms.
    assert made["graceful_timeout"] == 25
    assert made["control_socket_disable"] is True


@pytest.mark.parametrize(
    ("soft", "hard", "connections"),
    [(1024, 4096, 2880), (300, 1024, 576), (256, 260, 16), (4096, 20_000, 14_808)],
)
def test_connections_fit_the_descriptors(soft: int, hard: int, connections: int) -> None:
    made = conf(limit=(soft, hard))
    assert made["limit"] == [hard, hard]
    assert made["worker_connections"] == connections


def test_logs_are_masked_once() -> None:
    logged = (f"Error handling request /sse?access_token=abc&x={SECRET}", f"key {KEY}")
    made = conf(logged=logged, SSEFLASK_SECRET=SECRET, OPENAI_API_KEY=KEY)
    assert (
        made["written"]
        == [
            "Error handling request /sse?access_token=***&x=***",
            "key ***",
        ]
        * 2
    )
    assert made["filters"] == [1, 1]


def test_stores_in_the_memory_of_several_workers_are_warned_of() -> None:
    (line,) = conf(SSEFLASK_CHANNEL_LOG=":memory:")["written"]
    assert line.startswith("SSEFLASK_CHANNEL_LOG is :memory:, which each of the 3 workers has for")
    # Then the application says it.
    assert conf(SSEFLASK_CHANNEL_LOG=":memory:", WEB_CONCURRENCY="3")["written"] == []


def test_the_access_log_has_no_query() -> None:
    layout = conf()["access_log_format"]
    assert not any(atom in layout for atom in ("%(r)s", "%(q)s", "%(f)s", "RAW_URI"))


def test_a_bad_setting_stops_the_start_with_one_line() -> None:
    done = read(SSEFLASK_SECRET="too short")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("SSEFLASK_SECRET is not allowed: ")
    assert done.stderr.count("\n") == 1
    assert "too short" not in done.stderr


def test_an_unknown_platform_stops_the_start_with_one_line() -> None:
    done = read(installed=False, SSEFLASK_PLATFORM="heroko")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("SSEFLASK_PLATFORM='heroko' is not allowed: ")
    assert done.stderr.count("\n") == 1


def test_what_the_arbiter_must_not_import() -> None:
    # Before gevent has patched the standard library.
    modules = set(conf()["modules"])
    assert not modules & {"flask", "gevent", "httpx2", "httpx", "jwt", "openai", "urllib3"}


def test_it_serves_applications_without_the_service_extra() -> None:
    # gunicorn's own defaults follow PORT and WEB_CONCURRENCY.
    made = conf(installed=False, PORT="http")
    assert "bind" not in made
    assert made["worker_connections"] > 0


def test_json_lines_need_a_library() -> None:
    done = read(installed=False, SSEFLASK_LOG_FORMAT="json")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "SSEFLASK_LOG_FORMAT=json needs what is not installed: pip install python-json-logger\n"
    )
    assert (
        conf(SSEFLASK_LOG_FORMAT="json")["logger_class"]
        == "sseflask.logs.gunicorn_logger.JSONLogger"
    )
    assert "logger_class" not in conf(SSEFLASK_LOG_FORMAT="text")
