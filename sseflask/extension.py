"""``SSE(app)``: the library as a Flask extension."""

from __future__ import annotations

import functools
import logging
from pathlib import Path

from flask import (
    Flask,
    Response,
    current_app,
    has_request_context,
)

from sseflask import flask_context
from sseflask.channel_api import ChannelMethods
from sseflask.channels.channels import Channels
from sseflask.counters.stats import Stats, snapshot, stats_of
from sseflask.defaults import LIBRARY, MEMORY, setting
from sseflask.errors import ChannelError, Failure
from sseflask.flask_context import current_request
from sseflask.items import check_iterable, has_events
from sseflask.logs.masking import guard
from sseflask.logs.once import warn_once
from sseflask.readiness import Readiness, readiness_of
from sseflask.response import EventSourceResponse, UpgradedResponse
from sseflask.run_api import RunMethods
from sseflask.run_responses import leave_unsent
from sseflask.runs.kinds import outcome_of
from sseflask.runs.runs import Runs
from sseflask.runs.successor import go_on
from sseflask.runs.writer import Bounds
from sseflask.store.api import EventLimits
from sseflask.store.open import is_on_server
from sseflask.web.cursor import decode_header
from sseflask.web.refusals import bad_channel, refuse

__all__ = ["SSE", "channels_of", "current_sse", "runs_of", "store_address"]

log = logging.getLogger("sseflask")

_EXTENSION, _CHANNELS, _RUNS = "sseflask", "sseflask.channels", "sseflask.runs"


class SSE(ChannelMethods, RunMethods):
    """Makes an application's event streams robust without changes to its views.

    It has the application's channels and runs.

    Every streamed response of the type ``text/event-stream`` without a Content-Length is sent
    by the best transport that the server allows, its bytes unchanged. A `Failure` or a
    `ChannelError` that a view raises becomes a JSON error. Keep the instance where you keep other
    extensions, for `publish`, `subscribe`, `run` and the other methods.

    Args:
        app: the application; or use `init_app` later, with any number of applications.
    """

    def __init__(self, app: Flask | None = None) -> None:
        self._apps: list[Flask] = []
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Register with an application, before its first request.

        Raises:
            RuntimeError: the application has this extension already.
        """
        if not isinstance(app, Flask):
            raise TypeError(f"SSE is registered with an application, not with {app!r:.80}")
        if _EXTENSION in app.extensions:
            raise RuntimeError(
                "SSE has been registered with this application already: keep that one SSE, or find "
                f"it as app.extensions[{_EXTENSION!r}]"
            )
        app.extensions[_EXTENSION] = self
        address = functools.partial(store_address, app, "SSEFLASK_CHANNEL_LOG", "channels.sqlite3")
        most = setting(app.config, "SSEFLASK_CHANNEL_LOG_BYTES")
        app.extensions[_CHANNELS] = Channels(
            address,
            EventLimits(
                events=setting(app.config, "SSEFLASK_HISTORY_EVENTS"),
                seconds=setting(app.config, "SSEFLASK_HISTORY_SECONDS"),
                bytes=most,
            ),
        )
        if most != LIBRARY["SSEFLASK_CHANNEL_LOG_BYTES"] and is_on_server(address()):
            log.warning(
                "SSEFLASK_CHANNEL_LOG_BYTES has no effect, as the channels are on a Redis server: "
                "bound its memory (maxmemory), with a shorter history."
            )
        runs = app.extensions[_RUNS] = Runs(
            functools.partial(store_address, app, "SSEFLASK_RUN_LOG", "runs.sqlite3"),
            seconds=setting(app.config, "SSEFLASK_RUN_SECONDS"),
            max_running=setting(app.config, "SSEFLASK_MAX_RUNS"),
            outcome_of=outcome_of,
            bounds=Bounds(
                setting(app.config, "SSEFLASK_MAX_RUN_BYTES"),
                setting(app.config, "SSEFLASK_MAX_RUN_SECONDS"),
                setting(app.config, "SSEFLASK_RUN_LOG_BYTES"),
            ),
            heir=functools.partial(go_on, app),
        )
        if _has_runs(app):
            runs.open_at_start()
        app.before_request(_read_cursor)
        app.after_request(_upgrade)
        app.register_error_handler(Failure, refuse)
        app.register_error_handler(ChannelError, bad_channel)
        guard(logging.getLogger("sseflask"))
        self._apps.append(app)

    def _channels(self, app: Flask | None = None) -> Channels:
        return channels_of(app or self._app())

    def _runs(self) -> Runs:
        runs = runs_of(self._app())
        runs.serves = runs.serves or has_request_context()
        return runs

    def stats(self) -> Stats:
        """The current figures: streams, events, gaps, runs, and what the workers use.

        Under gunicorn with our worker class or our configuration these are the sums of all workers,
        dead ones included, others' as of a second ago; elsewhere those of this process. Any thread,
        no application context; blocks for a few reads of ``/proc``.
        """
        return stats_of(snapshot())

    def readiness(self) -> Readiness:
        """Whether new requests may be sent to this worker, and the state of the channels' store.

        Any thread; needs an application context only if this is registered with several
        applications. Blocks for half a second at most.

        Raises:
            RuntimeError: this is not registered with the application.
        """
        return readiness_of(channels_of(self._app()))

    def _app(self) -> Flask:
        app = flask_context.current_app()
        if app is not None and app.extensions.get(_EXTENSION) is self:
            return app
        if len(self._apps) == 1:
            return self._apps[0]
        if not self._apps:
            raise RuntimeError(
                "this SSE is registered with 0 applications: call sse.init_app(app), or make it "
                "with SSE(app), before the application's first request"
            )
        raise RuntimeError(
            f"this SSE is registered with {len(self._apps)} applications: call it in the context "
            "of one (with app.app_context(): ...)"
        )


def current_sse() -> SSE:
    """The `SSE` of the current application, which it is registered with."""
    app = flask_context.current_app() or current_app  # which says that there is none
    sse: SSE = app.extensions[_EXTENSION]
    return sse


def channels_of(app: Flask) -> Channels:
    """The channels of an application that `SSE` is registered with.

    Raises:
        RuntimeError: it is not.
    """
    channels: Channels | None = app.extensions.get(_CHANNELS)
    if channels is None:
        raise _not_registered(app)
    if not channels.memory_checked and has_request_context():
        channels.memory_checked = True
        name = "SSEFLASK_CHANNEL_LOG"
        _warn_about_memory(app, name, "channels.sqlite3", "Channels", "others don't deliver")
    return channels


def runs_of(app: Flask) -> Runs:
    """The runs of an application that `SSE` is registered with.

    Raises:
        RuntimeError: it is not.
    """
    runs: Runs | None = app.extensions.get(_RUNS)
    if runs is None:
        raise _not_registered(app)
    if not runs.memory_checked and has_request_context():
        runs.memory_checked = True
        _warn_about_memory(app, "SSEFLASK_RUN_LOG", "runs.sqlite3", "Runs", "others can't show")
    return runs


def _not_registered(app: Flask) -> RuntimeError:
    return RuntimeError(
        f"SSE is not registered with the application {app.name!r}: call SSE(app), or "
        "sse.init_app(app), before its first request"
    )


def _has_runs(app: Flask) -> bool:
    """Whether there may be runs of dead workers, so that ours has to open the store at its start.

    On a server there may; a file that is not there has none.
    """
    address = store_address(app, "SSEFLASK_RUN_LOG", "runs.sqlite3")
    return is_on_server(address) or Path(address).is_file()


def _warn_about_memory(app: Flask, name: str, file: str, what: str, else_: str) -> None:
    several = current_request().environ.get("wsgi.multiprocess")
    if several and store_address(app, name, file) == MEMORY:
        warn_once(
            f"{what} are in memory ({name} is :memory:), and there are several worker processes: "
            f"what one has, {else_}. Name a file, or start one worker."
        )


def store_address(app: Flask, name: str, file: str) -> str:
    """The address of a store, see `sseflask.store.open`.

    It is the path in ``app.config``, else the URL in ``SSEFLASK_STORE``, else a file in the
    instance folder; in tests memory.

    Args:
        app: the application.
        name: the setting of the path.
        file: the name of the file in the instance folder.
    """
    address: str = app.config.get(name) or app.config.get("SSEFLASK_STORE") or ""
    return address or (MEMORY if app.testing else str(Path(app.instance_path) / file))


def _read_cursor() -> None:
    decode_header(current_request())


def _upgrade(response: Response) -> Response:
    leave_unsent(response)
    if (
        not isinstance(response, EventSourceResponse)
        and response.mimetype == "text/event-stream"
        and (response.is_streamed or has_events(response.response))
        and "Content-Length" not in response.headers
        and "Content-Encoding" not in response.headers
    ):
        check_iterable(response.response)
        return UpgradedResponse.force_type(response)  # type: ignore[return-value]  # it is one now
    return response
