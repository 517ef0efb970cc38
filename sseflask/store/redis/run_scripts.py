"""Runs on a Redis server: one script for each thing that is done with them, see ``lua/runs.lua``.

What a process may do is decided by its lease, in the same script as what it does.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

from sseflask.store.api import Extent, KeyReused, StoreError
from sseflask.store.redis.address import COMMAND_SECONDS
from sseflask.store.redis.link import Argument, Link
from sseflask.store.redis.script import Script
from sseflask.store.redis.server import RedisServer
from sseflask.store.run_api import (
    Claim,
    Ending,
    Run,
    RunAppend,
    RunKey,
    RunLimits,
    StoreFull,
    TooMany,
)

#: Seconds without a sign of life after which a process is taken for dead. If no process at all gave
#: one for some time, all get this time anew. A process whose connections a firewall has forgotten
#: finds that out when a command's time is over, and must give its sign of life after that.
DEAD_SECONDS = COMMAND_SECONDS + 2.0

#: Seconds for which a run may wait for a process to go on with it, however short runs are kept.
WAIT_SECONDS = 60.0

#: Bytes after which a page of frames ends.
_PAGE_BYTES = 256 * 1024

#: Entries that are read from an inbox at once.
_ENTRIES = 200

#: Number of runs that are looked at to find those that nobody writes.
_STRAYS = 1000

#: Seconds for which runs are kept if they are to be kept for ever.
FOR_EVER = 10 * 365 * 86_400.0


def _script(name: str) -> Script:
    return Script("runs.lua", f"{name}.lua")


_CLAIM, _APPEND, _END = map(_script, ("claim_run", "append_to_runs", "end_run"))
_FIND, _READ, _MEASURE = map(_script, ("find_run", "read_frames", "measure_runs"))
_ATTACH, _DETACH, _FIND_ATTACHED = map(
    _script, ("attach_to_run", "detach_from_run", "find_attached")
)
_TICK, _LEAVE, _MAKE_ROOM = map(_script, ("tick", "leave_runs", "make_room"))


class UnknownProcess(Exception):
    """The server does not know this process, or no longer: see `RunScripts.tick`."""


class Found(NamedTuple):
    """A run, and whether this process writes it, or has ended it."""

    run: Run
    here: bool


class Tick(NamedTuple):
    """See `RunScripts.tick`."""

    entered: bool
    more: bool
    ended: list[Run]
    written: int
    inherited: list[tuple[Run, bytes]]
    found: dict[str, Found | None]


class Left(NamedTuple):
    """See `RunScripts.leave`."""

    ended: list[Run]
    passed_on: list[RunKey]


class Room(NamedTuple):
    """See `RunScripts.make_room`."""

    deleted: int
    largest: str | None


class RunScripts:
    """What this process does with runs. The key of a run is its id.

    Methods block; they raise `StoreError`, and may be repeated.
    """

    def __init__(self, server: RedisServer, limits: RunLimits, interrupted: Ending) -> None:
        self._keys = (server.key("r"),)
        self.token = secrets.token_hex(8)
        self._token = self.token.encode()
        self._inbox = server.key("r", "inbox", self.token)
        self._running = server.key("r", "running")
        self._common: tuple[Argument, ...] = (self._token, _milliseconds(limits.seconds))
        self._wait = _milliseconds(max(limits.seconds, WAIT_SECONDS))
        max_bytes = limits.max_bytes
        self._max_bytes = 0 if max_bytes == math.inf else max(1, int(max_bytes))
        self._interrupted = _arguments(interrupted)
        #: The bytes that all runs took when this process appended last.
        self.used = 0
        #: The last entry of the inbox that was read.
        self.seen = b"0"

    def _run(self, link: Link, script: Script, *arguments: Argument) -> Any:
        return link.run(script, self._keys, (*self._common, *arguments))

    # -- runs --------------------------------------------------------------------------------------

    def claim(self, link: Link, claim: Claim) -> tuple[Run, bool] | KeyReused | TooMany:
        """See `RunStore.claim`. May raise `UnknownProcess`."""
        what, *more = self._run(
            link,
            _CLAIM,
            *(claim.id, claim.subject, claim.account, claim.max_running, claim.label),
            *(claim.key or "", claim.digest, self._max_bytes, *self._interrupted),
            "" if claim.keep is None else _milliseconds(claim.keep),
            *(claim.successor, self._wait),
        )
        if what == b"fresh":
            return Run(claim.id, claim.id, claim.label, 0), False
        if what == b"known":
            return self._found(more[0]).run, True
        if what == b"enter":
            raise UnknownProcess
        if what == b"reused":
            return KeyReused(claim.key or "")
        if what == b"many":
            return TooMany(more[0])
        if what == b"full":
            raise StoreFull("the run log is full of what is running")
        raise StoreError("the claim was withdrawn before it was made")

    def append(self, link: Link, appends: Sequence[RunAppend]) -> tuple[list[RunAppend], list[Run]]:
        """Store what this process writes, each append whole.

        Returns the appends that are refused because the run has another writer, or has ended, or
        has lost frames; and the runs that the other appends have ended.
        """
        arguments: list[Argument] = [*self._common]
        for append in appends:
            notes = append.notes
            ending = append.ending
            arguments += (append.run, append.first, len(append.frames), append.size)
            arguments.append(notes[-1] if notes else b"")
            arguments += (b"", b"") if ending is None else _arguments(ending)
            arguments += append.frames
        used, *told = link.run(_APPEND, self._keys, arguments)
        self.used = used or self.used
        refused: list[RunAppend] = []
        ended: list[Run] = []
        for place, run in zip(told[::2], told[1::2], strict=True):
            if run == 0:
                refused.append(appends[place - 1])
            else:
                ended.append(self._found(run).run)
        return refused, ended

    def end(
        self,
        link: Link,
        run: RunKey,
        ending: Ending,
        *,
        unless_attached: bool = False,
        unless_passed_on: bool = False,
        withdrawn: bool = False,
        shown: int = 0,
    ) -> Found | None:
        """End a run, whatever process writes it; one that has ended stays as it is.

        Args:
            shown: the number of the last frame that clients have; the server may have lost it.
            unless_attached: not if other processes have viewers of it.
            unless_passed_on: not if another process goes on with it, or will.
            withdrawn: its claim may come later, and is not to begin it then.
        """
        answer = self._run(
            link,
            *(_END, run, *_arguments(ending)),
            _microseconds(DEAD_SECONDS) if unless_attached else b"",
            *(int(withdrawn), int(unless_passed_on), shown),
        )
        return None if answer is None else Found(self._found(answer[0]).run, answer[1] == 1)

    def find(self, link: Link, run: RunKey, subject: str | None = None) -> Found | None:
        """A run, if it is the subject's; ``None`` if there is none."""
        answer = self._run(link, _FIND, run, *(() if subject is None else (subject,)))
        return None if answer is None else self._found(answer)

    def frames(self, link: Link, run: RunKey, after: int, limit: int) -> list[tuple[int, bytes]]:
        """See `RunStore.frames`."""
        frames = self._run(link, _READ, run, after, limit, _PAGE_BYTES)
        return list(enumerate(frames, after + 1))

    def _found(self, answer: Any) -> Found:
        id, label, last, ended, outcome, notes, by = answer
        run = Run(id.decode(), id.decode(), label.decode(), last)
        if ended:
            run = run._replace(ended=ended, outcome=outcome, notes=notes)
        return Found(run, by.startswith(self._token))

    # -- processes ---------------------------------------------------------------------------------

    def attach(self, link: Link, run: RunKey) -> Run | None:
        """Have what becomes of a run put into this process's inbox. May raise `UnknownProcess`."""
        answer = self._run(link, _ATTACH, run)
        if answer == 0:
            raise UnknownProcess
        return None if answer is None else self._found(answer).run

    def detach(self, link: Link, run: RunKey) -> None:
        """Undo `attach`."""
        self._run(link, _DETACH, run)

    def attached_elsewhere(self, link: Link, runs: Collection[RunKey]) -> set[RunKey]:
        """See `RunStore.attached_elsewhere`."""
        return {
            run.decode()
            for run in self._run(link, _FIND_ATTACHED, _microseconds(DEAD_SECONDS), *runs)
        }

    def tick(
        self, link: Link, in_use: bool, runs: Sequence[RunKey], *, inherits: bool = False
    ) -> Tick:
        """Say that this process is alive, and end, or inherit, some runs of dead ones.

        Args:
            in_use: it writes runs or has viewers. Otherwise it does not say that it is alive.
            runs: some runs to be looked at, whose writers may be gone for good.
            inherits: whether it may go on with runs that nobody writes.

        Returns:
            Whether the process was unknown, so that it is attached to no run; whether there is more
            to do; the runs that it has ended; how many it writes; those that it has inherited, with
            how to go on; and ``runs`` as they are now.
        """
        entered, more, ended, written, inherited, *found = self._run(
            link,
            *(_TICK, int(in_use), _microseconds(DEAD_SECONDS), self.seen),
            *(*self._interrupted, int(inherits), self._wait, *runs),
        )
        return Tick(
            bool(entered),
            bool(more),
            [self._found(run).run for run in ended],
            written,
            [
                (self._found(run).run._replace(notes=notes, size=size), successor)
                for run, notes, size, successor in inherited
            ],
            {
                run: None if answer == 0 else self._found(answer)
                for run, answer in zip(runs, found, strict=True)
            },
        )

    def leave(self, link: Link, runs: Sequence[RunKey]) -> Left:
        """Leave some runs that this process writes to others, or end them as interrupted."""
        ended, passed_on = self._run(link, _LEAVE, *self._interrupted, self._wait, *runs)
        return Left([self._found(run).run for run in ended], [run.decode() for run in passed_on])

    def written(self, link: Link) -> set[RunKey]:
        """Some of the runs that go on and are said to be written by this process."""
        first = b"[" + self._token + b":"
        members = link.command(
            *("ZRANGEBYLEX", self._running, first, first + b"\xff"), *("LIMIT", 0, _STRAYS)
        )
        return {member.split(b":", 1)[1].decode() for member in members}

    def entries(self, link: Link, milliseconds: int) -> Sequence[list[bytes]]:
        """Wait for the next entries of this process's inbox; see ``lua/runs.lua``."""
        answer = link.command(
            *("XREAD", "COUNT", _ENTRIES, "BLOCK", milliseconds, "STREAMS"),
            *(self._inbox, self.seen),
        )
        if answer is None:
            return ()
        entries = answer[0][1]
        self.seen = entries[-1][0]
        return [entry for _, entry in entries]

    def empty_inbox(self, link: Link) -> None:
        """Forget the entries that have been read."""
        link.command("XTRIM", self._inbox, "MINID", self.seen)

    # -- space -------------------------------------------------------------------------------------

    def make_room(self, link: Link) -> Room:
        """Delete some of the runs that ended long ago, or for there is little room.

        Returns how many; and, if what goes on fills the room, the run with the most bytes.
        """
        deleted, *largest = self._run(link, _MAKE_ROOM, self._max_bytes)
        return Room(deleted, largest[0].decode() if largest and largest[0] else None)

    def extent(self, link: Link) -> Extent:
        used, microseconds = self._run(link, _MEASURE)
        return Extent(max(0, used), int(microseconds) / 1e6)


def _arguments(ending: Ending) -> tuple[bytes, bytes]:
    return ending.outcome, b"1" if ending.frees_key else b"0"


def _milliseconds(seconds: float) -> int:
    return round(min(seconds, FOR_EVER) * 1000)


def _microseconds(seconds: float) -> int:
    return round(seconds * 1e6)


def ended_run(entry: Sequence[bytes]) -> tuple[Run, bytes]:
    """The run of an inbox's entry about an end, and which process has ended it."""
    _, id, _, label, _, last, _, ended, _, outcome, _, notes, _, by = entry
    run = Run(id.decode(), id.decode(), label.decode(), int(last), int(ended), outcome, notes)
    return run, by


def numbered_frames(entry: Sequence[bytes]) -> Iterator[tuple[int, bytes]]:
    """The frames of an inbox's entry."""
    return zip(map(int, entry[2::2]), entry[3::2], strict=True)
