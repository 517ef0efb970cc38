"""The description of a stack, in each file of `benchmarks/servers/`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

ROUTES: Mapping[str, str] = {
    "flood": "/flood?count={count}",
    "tick": "/tick?rate={rate}&count={count}",
    "relay": "/relay",
    "silent": "/silent?mark={mark}",
    "open": "/open",
    "counter": "/counter?count={count}&interval={interval}",
}
"""The streams that a request begins and that end with their generator, or with the client."""

CHANNEL_ROUTES: Mapping[str, str] = {
    "subscribe": "/subscribe/{channel}",
    "resume": "/subscribe/{channel}",
    "publish": "/publish/{channel}",
    "publish_across": "/publish/{channel}",
    "publish_array": "/publish_array/{channel}",
    "publish_loop": "/publish_loop/{channel}?count={count}",
    "health": "/healthz",
}
"""Publish and subscribe. What is posted to `publish` is the data of an event, to `publish_array` a
JSON array of objects with `data`; `publish_loop` has the server itself publish `count` events;
`publish_across` is the `publish` of a server with two workers, `resume` the `subscribe` of one that
gives events ids and a client with a Last-Event-ID what it has missed."""

RUN_ROUTES: Mapping[str, str] = {"run": "/runs/{run}"}
"""The viewers of a relayed stream that the server has stored. Where there is this route, each event
of `relay` and of `run` has the id `<run>.<n>`."""

ITEM_ROUTES: Mapping[str, str] = {
    "items": "/items?rate={rate}&count={count}&size={size}",
    "stored_items": "/stored_items?rate={rate}&count={count}&size={size}",
    "view_items": "/stored_items/{run}",
    "stored_open": "/stored_open",
}
"""Generators of an application: texts of `size` characters at least, each of a number; the same
as a run, which is stored, with ids `<run>.<n>` and a last event of its own; the viewers of such a
run; and the `open` of `ROUTES` as a run, which ends when its client leaves."""

Family = Literal["sseflask", "wsgi", "asgi", "bare"]
"""Whose idea of serving a stack follows; `bare` is for what has no framework at all."""


class NoRoute(Exception):
    """A scenario needs a route that the stack does not have."""


@dataclass(frozen=True, kw_only=True)
class Stack:
    """How a server is started and where its routes are.

    `command` is run in the repository's root with `{port}` replaced; `environment` is added to
    the harness's own; `routes` are templates by name (a stack may have fewer than all);
    `packages` are the distributions whose versions a result names, `programs` names and commands
    that print theirs. With `redis` it stores everything on a Redis server of its own, started with
    these options; `REDIS_URL` names it.
    """

    name: str
    title: str
    family: Family
    command: tuple[str, ...]
    packages: tuple[str, ...]
    programs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    routes: Mapping[str, str] = field(default_factory=lambda: ROUTES)
    redis: tuple[str, ...] | None = None

    def path(self, route: str, **values: object) -> str:
        """Give the path and query of a route; NoRoute where this stack has no such route."""
        if route not in self.routes:
            raise NoRoute(f"has no route {route!r}")
        return self.routes[route].format(**values)


def gunicorn(application: str, *options: str) -> tuple[str, ...]:
    """Give the command of one gunicorn worker without a cap that a scenario would run into."""
    return (
        *(sys.executable, "-m", "gunicorn", application, "--bind", "127.0.0.1:{port}"),
        *("--workers", "1", "--worker-connections", "15000", "--no-control-socket"),
        *("--log-level", "warning", *options),
    )


def uvicorn(application: str, *options: str) -> tuple[str, ...]:
    """Give the command of one uvicorn process with its fast loop and parser, no access log."""
    return (
        *(sys.executable, "-m", "uvicorn", application, "--host", "127.0.0.1", "--port", "{port}"),
        *("--loop", "uvloop", "--http", "httptools", "--no-access-log"),
        *("--log-level", "warning", *options),
    )
