"""gunicorn's configuration for event streams: ``gunicorn wsgi:app -c sseflask/gunicorn_conf.py``.

Read by gunicorn's arbiter before gevent has patched anything: nothing of Flask, the upstream's
client or gevent may be imported at the top. It serves other apps too; what is set here can be
overridden on the command line and in GUNICORN_CMD_ARGS.
"""

from __future__ import annotations

import importlib.util
import io
import logging
import os
import resource
import sys
from typing import TYPE_CHECKING, NoReturn

from sseflask import platforms
from sseflask.counters.sharing import sharing
from sseflask.defaults import ADDRESS, GRACE
from sseflask.errors import ConfigError
from sseflask.logs import access_fields
from sseflask.logs.masking import guard

if TYPE_CHECKING:
    from gunicorn.arbiter import Arbiter
    from gunicorn.workers.base import Worker

#: Descriptors for everything but streams: listeners, logs, gunicorn's pipes, modules, spare.
RESERVED_DESCRIPTORS = 256
#: A connection has its client's socket, and that of a completion its upstream's too: one connection
#: in three is assumed to be a completion's.
DESCRIPTORS_PER_THREE = 4
#: The most connections of one worker, however many descriptors it may have: about 400 MiB if all of
#: them are streams with a generator, 20 MiB if they are subscribers.
MOST_CONNECTIONS = 20_000
#: A soft limit that every system grants, if the hard one is "unlimited" and may not be set.
FALLBACK_DESCRIPTORS = 10_240


def _raise_descriptor_limit() -> int:
    """Raise the soft limit on open files to the hard one, and return it; workers inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (hard, FALLBACK_DESCRIPTORS):
        if wanted == resource.RLIM_INFINITY or soft == resource.RLIM_INFINITY or wanted <= soft:
            continue
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (ValueError, OSError):
            continue
        break
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit


def _connections(descriptors: int) -> int:
    """How many connections a worker with this many descriptors may have."""
    fitting = (descriptors - RESERVED_DESCRIPTORS) * 3 // DESCRIPTORS_PER_THREE
    return max(16, min(MOST_CONNECTIONS, fitting))


def _guard_logs(secrets: tuple[str, ...]) -> None:
    """Mask tokens and escape unprintable characters in both logs: gunicorn does neither."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Clients send letters that the locale may lack: no reason for a traceback.
        sys.stdout.reconfigure(errors="backslashreplace")
    for name in ("gunicorn.error", "gunicorn.access"):
        guard(logging.getLogger(name), secrets)


def _stop(reason: object) -> NoReturn:
    if _has_json and _log_format == "json":
        from sseflask.logs import json_log

        json_log.log_start_failure(reason)
    else:
        print(reason, file=sys.stderr)
    raise SystemExit(2)


worker_class = "sseflask.transport.worker.StreamWorker"
worker_connections = _connections(_raise_descriptor_limit())
graceful_timeout = GRACE  # see below for a platform that is known
# A gevent worker reports from its loop, so a long stream is no reason to kill it; a loop that
# is stuck for this long is.
timeout = 60
# Between two requests, also after a stream: longer than most proxies' reuse interval.
keepalive = 5
# A proxy on this machine passes its clients' own SCRIPT_NAME and PATH_INFO on. If gunicorn believed
# them, they would lead past what the proxy forbids. The scheme is left to ProxyFix, as
# SSEFLASK_TRUSTED_PROXIES says.
forwarder_headers = ""
secure_scheme_headers: dict[str, str] = {}
# EventSource can send questions, cursors and tokens in the query only.
limit_request_line = 8190
accesslog = "-"
# The path is without the query. The time of a stream is its whole length.
access_log_format = access_fields.FORMAT
# Its default place, in the home directory, is the same for every gunicorn of one user.
control_socket_disable = True

_secrets: tuple[str, ...] = ()
_log_format = os.environ.get("SSEFLASK_LOG_FORMAT", "")
_has_json = importlib.util.find_spec("pythonjsonlogger") is not None
try:
    _platform = platforms.detect(os.environ)
except ConfigError as error:
    _stop(error)
if _platform is not None:
    graceful_timeout = _platform.grace
    keepalive = _platform.keepalive or keepalive
if importlib.util.find_spec("pydantic_settings"):
    # The service is installed.
    from sseflask.config import load, memory_warnings

    try:
        _settings = load()
    except ConfigError as error:
        _stop(error)
    _secrets = _settings.confidential
    bind = f"0.0.0.0:{_settings.port}" if _settings.port else ADDRESS
    workers = _settings.web_concurrency
    graceful_timeout = _settings.grace

    def when_ready(server: Arbiter) -> None:
        """Log the platform that was detected, and what the command line's workers need."""
        if server.log is None:
            return
        variable = platforms.detected_by(os.environ)
        if _platform is not None and variable:
            message = "%s is set: defaults fit the platform %s (see sseflask config)"
            server.log.info(message, variable, _platform.name)
        if server.cfg.workers != _settings.web_concurrency:
            for warning in memory_warnings(_settings, server.cfg.workers):
                server.log.warning("%s", warning)


_guard_logs(_secrets)
if _log_format == "json":
    if not _has_json:
        _stop(
            "SSEFLASK_LOG_FORMAT=json needs what is not installed: pip install python-json-logger"
        )
    logger_class = "sseflask.logs.gunicorn_logger.JSONLogger"


def pre_fork(server: Arbiter, worker: Worker) -> None:  # noqa: ARG001  # gunicorn counts them
    """Give each worker, of any class, a slot for its figures."""
    sharing.take(worker)


def child_exit(server: Arbiter, worker: Worker) -> None:  # noqa: ARG001  # gunicorn counts them
    """The slot of a worker's figures is free again."""
    sharing.release(worker)


def pre_exec(server: Arbiter) -> None:
    """Pass the counters on to the gunicorn that replaces this one (SIGUSR2)."""
    sharing.pass_on(server.cfg.env_orig)


def post_worker_init(worker: Worker) -> None:
    """Share figures under any worker class; prepare gunicorn's own gevent worker for streams."""
    sharing.begin(worker)
    if "gunicorn.workers.ggevent" not in sys.modules:
        return  # another worker class; gevent may not be installed
    if _log_format == "json":
        from sseflask.logs import json_log

        json_log.log_greenlet_errors()
    from sseflask.transport.gunicorn import plain_gevent

    plain_gevent.prepare(worker)


def worker_int(worker: Worker) -> None:
    """Drain streams on Ctrl-C under plain ``-k gevent`` too."""
    if "gunicorn.workers.ggevent" in sys.modules:
        from sseflask.transport.gunicorn import plain_gevent

        plain_gevent.interrupt(worker)


def worker_exit(server: Arbiter, worker: Worker) -> None:  # noqa: ARG001  # gunicorn counts them
    """End a worker once, at Ctrl-C under plain ``-k gevent`` too."""
    sharing.write()
    if "gunicorn.workers.ggevent" in sys.modules:
        from sseflask.transport.gunicorn import plain_gevent

        plain_gevent.exit_once(worker)
