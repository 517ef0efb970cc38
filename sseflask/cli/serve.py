"""``sseflask serve``: the service, as the Procfile starts it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

import click

from sseflask import config
from sseflask.defaults import ADDRESS
from sseflask.errors import ConfigError

#: Seconds that streams have to end in development.
_DEVELOPMENT_GRACE = 2


@click.command("serve")
@click.option(
    "--dev",
    is_flag=True,
    help="Development mode: listen on 127.0.0.1 only, and trust requests from this machine, which "
    "then need no token. Stops within seconds.",
)
def command(dev: bool) -> NoReturn:
    """Start the service with gunicorn, in the foreground.

    Listens on port PORT of all addresses, or on 127.0.0.1:8000 when PORT is not set, with
    WEB_CONCURRENCY worker processes. Further gunicorn options go into GUNICORN_CMD_ARGS.
    Ctrl-C or SIGTERM ends it.
    """
    try:
        settings = config.load()
    except ConfigError as error:
        if os.environ.get("SSEFLASK_LOG_FORMAT") != "json":
            raise
        # What starts the service reads its log.
        from sseflask.logs import json_log

        json_log.log_start_failure(error)
        raise SystemExit(2) from None
    command = [sys.executable, "-m", "gunicorn"]
    command += ["-c", str(Path(__file__).parents[1] / "gunicorn_conf.py")]
    if dev:
        command += ["-b", f"127.0.0.1:{settings.port}" if settings.port else ADDRESS]
    command.append(f"sseflask.app:create_app(development={dev})")
    # gunicorn reads it at its import, and would fail on an empty value.
    environment = {**os.environ, "WEB_CONCURRENCY": str(settings.web_concurrency)}
    if dev:
        # Before the operator's options, which win.
        own = environment.get("GUNICORN_CMD_ARGS", "")
        environment["GUNICORN_CMD_ARGS"] = f"--graceful-timeout {_DEVELOPMENT_GRACE} {own}".strip()
    os.execve(command[0], command, environment)
