"""Moves the ended runs of a Redis server, see `sseflask.store.transfer` and ``lua/runs.lua``."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from sseflask.store.api import StoreError
from sseflask.store.redis.link import Argument
from sseflask.store.redis.pipeline import Command, Pipeline
from sseflask.store.redis.run_scripts import DEAD_SECONDS, FOR_EVER
from sseflask.store.run_api import FRAME_BYTES, RunLimits
from sseflask.store.transfer import PART_BYTES, PART_ITEMS, Counts, RunPart

#: Bytes that a run takes without its frames, about; as in ``lua/runs.lua``.
_RUN_BYTES = 1024

#: Seconds for which a run is kept after its end in any case; as in ``lua/runs.lua``.
_READ_SECONDS = 10.0

#: Milliseconds for which a run stays after its time, until a process deletes it.
_LATER = 60_000

_FIELDS = (
    *("subject", "account", "label", "key", "digest", "last", "outcome", "notes", "at", "size"),
    "ended",
)

#: What a run has beside its frames and `_FIELDS`.
_MORE: dict[str, str] = {"writer": "0" * 16, "by": "-", "watchers": ""}


class MovedRuns:
    """The runs on a server, for the process that moves them."""

    def __init__(self, pipeline: Pipeline, limits: RunLimits) -> None:
        self._pipeline = pipeline
        self._seconds = min(limits.seconds, FOR_EVER)
        self._base = pipeline.key("r")

    def _key(self, *names: str) -> bytes:
        return self._pipeline.key("r", *names)

    # -- from it -----------------------------------------------------------------------------------

    def users(self) -> int:
        """How many processes write runs, or have viewers."""
        since = f"{(self._pipeline.time() - DEAD_SECONDS) * 1e6:.0f}"
        count: int = self._pipeline.command("ZCOUNT", self._key("processes"), since, "+inf")
        return count

    def count(self, counts: Counts) -> None:
        counts.running = self._pipeline.command("ZCARD", self._key("running"))
        for heads in self._heads():
            for head, size in heads:
                counts.runs += 1
                counts.frames += head.last
                counts.bytes += size - FRAME_BYTES * head.last

    def _heads(self) -> Iterator[list[tuple[RunPart, int]]]:
        """The runs without their frames, and their sizes."""
        pipeline = self._pipeline
        now = pipeline.time()
        for members in itertools.chain(self._members("ended"), self._members("kept")):
            ids = [member.rpartition(b":")[0].decode() for member in members]
            found = pipeline.commands(
                [("HMGET", self._key("run", id), *_FIELDS, "keep") for id in ids]
            )
            # A key that was freed names no run, or another one.
            named = pipeline.commands(
                [("GET", self._key("key", (row[3] or b"").decode())) for row in found]
            )
            heads = []
            for id, row, owner in zip(ids, found, named, strict=True):
                subject, account, label, key, digest, last, outcome, notes, at, size = row[:10]
                ended, milliseconds = row[10:]
                if ended is None:
                    continue  # Redis has evicted it
                age = max(0.0, now - int(at) / 1e6)
                keep = None if milliseconds is None else int(milliseconds) / 1000
                if age >= self._kept(keep):
                    continue
                head = RunPart(
                    id=id,
                    subject=subject.decode(),
                    account=account.decode(),
                    label=label.decode(),
                    key=key.decode() if key and owner == id.encode() else None,
                    digest=digest,
                    last=int(last),
                    outcome=outcome,
                    notes=notes,
                    age=age,
                    keep=keep,
                    first=1,
                    frames=(),
                )
                heads.append((head, int(size)))
            yield heads

    def _members(self, name: str) -> Iterator[list[bytes]]:
        place = 0
        while members := self._pipeline.command("ZRANGE", self._key(name), place, place + 99):
            yield members
            place += 100

    def _kept(self, keep: float | None) -> float:
        """The seconds for which a run is kept."""
        return self._seconds if keep is None else min(keep, FOR_EVER)

    def parts(self) -> Iterator[RunPart]:
        for heads in self._heads():
            for head, size in heads:
                yield from self._run(head, size)

    def _run(self, head: RunPart, size: int) -> Iterator[RunPart]:
        if not head.last:
            yield head
            return
        amount = max(1, min(PART_ITEMS, PART_BYTES * head.last // max(1, size)))
        for first in range(1, head.last + 1, amount):
            numbers = range(first, min(first + amount, head.last + 1))
            frames = self._pipeline.command("HMGET", self._key("run", head.id), *numbers)
            if None in frames:
                raise StoreError("the Redis server has thrown a run away while it was copied")
            yield head._replace(first=first, frames=frames)

    # -- into it -----------------------------------------------------------------------------------

    @property
    def is_empty(self) -> bool:
        sizes = self._pipeline.commands(
            [("ZCARD", self._key(name)) for name in ("ended", "kept", "running")]
        )
        return not any(sizes)

    def begin(self) -> None:
        self._now = self._pipeline.time()

    def commands(self, part: RunPart) -> list[Command]:
        """What stores a part. The last one's last reply says how many fields the run has."""
        key = self._key("run", part.id)
        commands: list[Command] = []
        if part.first == 1:
            self._size = 0
        if part.frames:
            self._size += sum(map(len, part.frames)) + FRAME_BYTES * len(part.frames)
            numbered = enumerate(part.frames, part.first)
            commands.append(("HSET", key, *(each for frame in numbered for each in frame)))
        if not part.ends:
            return commands
        ended = self._now - part.age
        kept = self._kept(part.keep)
        at = f"{ended * 1e6:.0f}"
        values: tuple[Argument, ...] = (
            *(part.subject, part.account, part.label, part.key or "", part.digest, part.last),
            *(part.outcome, part.notes, at, self._size, part.last + 1),
        )
        fields: list[Argument] = []
        for name, value in (*zip(_FIELDS, values, strict=True), *_MORE.items()):
            fields += name, value
        where, over = "ended", at
        if part.keep is not None:
            fields += "keep", round(kept * 1000)
            where, over = "kept", f"{(ended + max(kept, _READ_SECONDS)) * 1e6:.0f}"
        commands.append(("HSET", key, *fields))
        left = max(1, math.ceil((kept - part.age) * 1000)) + _LATER
        commands.append(("PEXPIRE", key, left))
        if part.key:
            commands.append(("SET", self._key("key", part.key), part.id, "PX", left))
        taken = self._size + _RUN_BYTES
        commands.append(("ZADD", self._key(where), over, f"{part.id}:{taken}"))
        commands.append(("HINCRBY", self._base, "bytes", taken))
        commands.append(("HLEN", key))
        return commands

    def check(self, part: RunPart, fields: int) -> None:
        """Raise `StoreError` if a run lacks something after its last part."""
        more = len(_MORE) + (part.keep is not None)
        if fields != part.last + len(_FIELDS) + more:
            raise StoreError("the Redis server throws away what it was given: give it more memory")
