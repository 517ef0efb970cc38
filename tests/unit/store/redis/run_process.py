"""Processes of a Redis store of runs, as tests have them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from redis import Redis

from sseflask.store.api import KeyReused
from sseflask.store.redis.link import Link
from sseflask.store.redis.run_scripts import RunScripts, Tick
from sseflask.store.redis.server import RedisServer
from sseflask.store.run_api import (
    Claim,
    Ending,
    Run,
    RunAppend,
    RunKey,
    RunLimits,
    TooMany,
)
from tests.contract.run_stores import DAY, ENDINGS, append_of, fresh


@dataclass
class Process:
    """The scripts as one process uses them."""

    scripts: RunScripts
    link: Link

    @property
    def token(self) -> str:
        return self.scripts.token

    def tick(self, *runs: RunKey, in_use: bool = True, inherits: bool = False) -> Tick:
        return self.scripts.tick(self.link, in_use, runs, inherits=inherits)

    def claim(self, claim: Claim) -> tuple[Run, bool] | KeyReused | TooMany:
        return self.scripts.claim(self.link, claim)

    def begin(self, claim: Claim | None = None) -> Run:
        claimed = self.claim(claim or fresh())
        assert isinstance(claimed, tuple)
        assert not claimed[1]
        return claimed[0]

    def append(self, *appends: RunAppend) -> tuple[list[RunAppend], list[Run]]:
        return self.scripts.append(self.link, appends)

    def put(self, run: Run, first: int, amount: int, ending: Ending | None = None) -> bool:
        """Append frames after `frames_of` all that come before; say whether that is stored."""
        append = append_of(run, first, amount, ending)
        refused, _ = self.append(append)
        assert refused in ([], [append])
        return not refused

    def end(self, run: Run, ending: Ending) -> Run | None:
        found = self.scripts.end(self.link, run.key, ending)
        return None if found is None else found.run

    def now(self, run: Run) -> Run | None:
        found = self.scripts.find(self.link, run.key)
        return None if found is None else found.run

    def frames(self, run: Run) -> list[tuple[int, bytes]]:
        found: list[tuple[int, bytes]] = []
        while page := self.scripts.frames(self.link, run.key, len(found), 1000):
            found += page
        return found

    def entries(self) -> list[list[bytes]]:
        return list(self.scripts.entries(self.link, 1))


@contextmanager
def opened(
    url: str, *, seconds: float = DAY, max_bytes: float = math.inf, enter: bool = True
) -> Iterator[Process]:
    server = RedisServer.open(url)
    link = server.link()
    process = Process(RunScripts(server, RunLimits(seconds, max_bytes), ENDINGS.interrupted), link)
    if enter:
        assert process.tick().entered
    try:
        yield process
    finally:
        link.close()
        server.close()


def keys(client: Redis, url: str) -> list[str]:
    """The keys of a store, without the prefix."""
    prefix = url.partition("prefix=")[2]
    base = f"{{{prefix}}}:r"
    found = client.keys(f"{{{prefix}}}:r*")
    return sorted(bytes(each).decode().removeprefix(base) for each in found)  # type: ignore[arg-type]  # never text: it decodes nothing


def key(url: str, *parts: str) -> str:
    prefix = url.partition("prefix=")[2]
    return ":".join((f"{{{prefix}}}:r", *parts))
