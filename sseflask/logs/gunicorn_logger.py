"""gunicorn's logger, whose lines are JSON. Loaded by gunicorn's arbiter."""

from __future__ import annotations

from logging.handlers import SysLogHandler
from typing import Any

from gunicorn.glogging import Logger

from sseflask.logs.access_fields import FORMAT, SHORT_FORMAT, AccessFields
from sseflask.logs.json_log import install, take_over_prints, use_for
from sseflask.logs.masking import secrets_of


class JSONLogger(Logger):
    """``--logger-class sseflask.logs.gunicorn_logger.JSONLogger``; with statsd if that is set.

    A log configuration of the operator's own (``logconfig``, ``logconfig_dict``,
    ``logconfig_json``) is left as it is, and so are lines for syslog.
    """

    def __new__(cls, cfg: Any) -> JSONLogger:
        """gunicorn itself chooses a logger for statsd only if no other is configured."""
        if cfg.statsd_host is not None:
            from gunicorn.instrument.statsd import Statsd

            if not issubclass(cls, Statsd):
                cls = type("JSONStatsd", (cls, Statsd), {})
        return super().__new__(cls)

    def setup(self, cfg: Any) -> None:
        """Configure the loggers; gunicorn calls it for each configuration."""
        super().setup(cfg)
        if cfg.logconfig_dict or cfg.logconfig_json or cfg.logconfig:
            return
        if cfg.access_log_format == FORMAT:  # the operator's own stays
            cfg.set("access_log_format", SHORT_FORMAT)
        secrets = secrets_of(self.error_log)
        for handler in (*self.error_log.handlers, *self.access_log.handlers):
            if not isinstance(handler, SysLogHandler):
                use_for(handler, secrets)
        if not any(isinstance(each, AccessFields) for each in self.access_log.filters):
            self.access_log.filters.insert(0, AccessFields())
        install(secrets)
        take_over_prints(secrets)
