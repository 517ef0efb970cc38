"""What services keep channels and runs in: files, or a server of Redis.

A test of what several workers promise is marked `on_every_store`: it shows what a store does for
them. What is about files themselves (locked, full, read-only, deleted) stays with files, and so
does what a worker does by itself: formats, rights, upstreams.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import pytest

from tests.live.kit.services import logs
from tests.redis_server import place

#: Gives the settings of a service that keeps all in a store: those of one directory mean one place,
#: and nobody else has it.
Store = Callable[[Path], Mapping[str, str]]


@cache
def on_redis(directory: Path) -> Mapping[str, str]:
    """A place on the server of this test process; the files' settings are as if they were unset."""
    return {**dict.fromkeys(logs(directory), ""), "REDIS_URL": place()}


STORES: Mapping[str, Store] = {"sqlite": logs, "redis": on_redis}

#: For a test, or for all of a module: those that use the fixture `store`, directly or not.
on_every_store = pytest.mark.parametrize("store", STORES.values(), ids=STORES, indirect=True)
