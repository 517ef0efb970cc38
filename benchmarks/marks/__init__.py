"""Marks: when a published event has come how far on its way through the service's workers.

A hook (sitecustomize.py here) puts a note beside some of the service's functions. An event is known
by its data, which begin with its number and the moment at which it was sent; all processes of a
machine share that clock (CLOCK_MONOTONIC). A mark takes some microseconds.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

VARIABLE = "BENCHMARK_MARKS"
"""Names the folder in which each process leaves a file."""

PUBLISHER = ("read", "handed", "taken", "stored", "sent")
"""The marks of the worker that is given an event: it has read the request's head, hands the event
to the store's thread, which takes it, has stored it, and begins to send it to the other worker."""

OTHER = ("received", "writing")
"""Those of the other worker: the loop takes what was sent, and begins to write to subscribers."""

_EVENT = re.compile(rb"data: (\d+) (\d+) ")


class Marks:
    """Writes marks to this process's file. Thread-safe: a line is one write."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[int, int] = {}

    def note(self, mark: str, data: bytes, at: int | None = None) -> None:
        """Note that the event in some data has come to a mark, now or at a moment."""
        found = _EVENT.search(data)
        if found is None:
            return
        process = os.getpid()
        if process not in self._files:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            self._files[process] = os.open(self._folder / str(process), flags, 0o600)
        number, sent = map(int, found.groups())
        line = f"{mark} {number} {sent} {at or time.monotonic_ns()}\n"
        os.write(self._files[process], line.encode())


def read(folder: Path) -> Mapping[tuple[int, int], Mapping[str, tuple[int, int]]]:
    """Give the first time of each mark, and its process, by the event's number and moment."""
    found: defaultdict[tuple[int, int], dict[str, tuple[int, int]]] = defaultdict(dict)
    for file in folder.iterdir():
        for line in file.read_text().splitlines():
            mark, *numbers = line.split()
            number, sent, at = map(int, numbers)
            key = mark if mark in PUBLISHER else f"{mark} {file.name}"
            found[number, sent].setdefault(key, (at, int(file.name)))
    return found


@contextlib.contextmanager
def marked_environment() -> Iterator[dict[str, str]]:
    """Have what the service needs in its environment to leave marks."""
    with tempfile.TemporaryDirectory(prefix="benchmark-marks-") as folder:
        paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
        yield {VARIABLE: folder, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def note_all(marks: Marks) -> None:
    """Have the service's functions note what they do, in a worker whose service is not imported."""
    import gevent

    from sseflask.store.sqlite import event_store
    from sseflask.store.sqlite.event_database import EventDatabase
    from sseflask.store.sqlite.wakeup import WakeupSocket
    from sseflask.transport.detached.delivery import Delivery
    from sseflask.transport.gunicorn.plain_request import PlainRequest

    heads: dict[Any, int] = {}  # by the greenlet, of which each has one request at a time

    def head(*_: object) -> None:
        heads[gevent.getcurrent()] = time.monotonic_ns()

    def handed(_store: object, append: Any) -> None:
        began = heads.pop(gevent.getcurrent(), None)
        if began is not None:
            marks.note("read", append.frames[0], began)
        marks.note("handed", append.frames[0])

    def appends(mark: str) -> Callable[..., None]:
        def note(_database: object, appends: Iterable[Any]) -> None:
            for append in appends:
                marks.note(mark, append.frames[0])

        return note

    _noted(PlainRequest, "_read_head", before=head)
    _noted(event_store.SqliteEventStore, "append", before=handed)
    _noted(EventDatabase, "append", before=appends("taken"), after=appends("stored"))
    _noted(WakeupSocket, "wake_others", before=lambda _, message=b"": marks.note("sent", message))
    _noted(event_store, "decode", before=lambda message: marks.note("received", message))
    _noted(
        Delivery,
        "_write",
        before=lambda _delivery, _group, piece, _streams: marks.note("writing", piece.data),
    )


def _noted(
    owner: Any,
    name: str,
    before: Callable[..., None] | None = None,
    after: Callable[..., None] | None = None,
) -> None:
    function = getattr(owner, name)

    @functools.wraps(function)
    def noted(*arguments: Any) -> Any:
        if before is not None:
            before(*arguments)
        result = function(*arguments)
        if after is not None:
            after(*arguments)
        return result

    setattr(owner, name, noted)
