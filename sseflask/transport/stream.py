"""What a response hands to a transport, and what a transport gives the server."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from sseflask.counters.counts import Kind
from sseflask.errors import Failure
from sseflask.event import Event
from sseflask.transport.source import Source

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


#: Milliseconds after which the first of these clients reconnects: a worker takes about as long to
#: start.
_FIRST_RECONNECT = 500


class Closable(Protocol):
    """What ends with its `close`."""

    def close(self) -> object: ...


_NO_HEADERS: list[tuple[str, str]] = []


@dataclass(slots=True, eq=False)
class Stream:
    """One response's events, and how they are to be sent.

    Attributes:
        items: what the application yields; advanced and closed by one greenlet or thread only.
        encode: turns any item into bytes; ``bytes`` items don't pass through it.
        frames_only: the items are ready-made frames (an upgraded plain response).
        heartbeat: seconds of silence after which a heartbeat is sent.
        first_byte: seconds that the headers wait for the first event.
        lifetime: seconds after which a stream that can be resumed ends; 0 for never.
        expires_at: the Unix time at which the stream must end, or ``None``.
        detachable: a source may leave its stream to a group: nothing has to be called at the
            response's end.
        retry: the reconnection time to begin with, in milliseconds, unless the client has its own.
        retry_jitter: over how many milliseconds clients of streams that end together reconnect.
        keeps_view: the items are advanced within the view's contexts (Flask's), which last as long
            as the application is being called.
        context: gives another thread these contexts, once, while it advances the items.
        path: of the request, for the log.
        reporter: takes the path and an exception of the items; logs it and gives the failure that
            the client may see.
        response: its ``close`` closes the items and runs the response's own close callbacks.
        source: the items, if they are one.
    """

    items: Iterable[Any]
    encode: Callable[[Any], bytes]
    status: str
    headers: list[tuple[str, str]]
    frames_only: bool
    heartbeat: float
    first_byte: float
    lifetime: float
    expires_at: float | None
    detachable: bool
    retry: int | None
    retry_jitter: int
    keeps_view: bool
    context: Callable[[], AbstractContextManager[object]]
    path: str
    reporter: Callable[[str, Exception], Failure]
    failure_frame: Callable[[Failure], bytes]
    response: Closable
    source: Source | None = field(init=False)

    def __post_init__(self) -> None:
        self.source = self.items if isinstance(self.items, Source) else None

    @property
    def kind(self) -> Kind:
        """Where the events come from, as it is counted."""
        return "stream" if self.source is None else self.source.kind

    @property
    def all_headers(self) -> list[tuple[str, str]]:
        """The response's headers, with those that are known when it begins."""
        late = [] if self.source is None else [*self.source.extra_headers()]
        if not late:
            return self.headers
        names = {name.lower() for name, _ in late}
        return [*(each for each in self.headers if each[0].lower() not in names), *late]

    def report(self, error: Exception) -> Failure:
        """Log an exception of the items, and give the failure that the client may see."""
        return self.reporter(self.path, error)

    def forget_beginning(self) -> None:
        """The response has begun, in the view's greenlet: let go of what is not needed any more."""
        self.headers = _NO_HEADERS
        self.context = contextlib.nullcontext

    @property
    def opening(self) -> bytes:
        """What precedes the first event; one newline, so that it is part of that event."""
        return b"" if self.retry is None else b"retry: %d\n" % self.retry


def has_header(headers: Iterable[tuple[str, str]], name: str) -> bool:
    """Whether a header of this name, in small letters, is among some."""
    size = len(name)
    return name in [each.lower() for each, _ in headers if len(each) == size]


def as_exception(error: BaseException) -> Exception:
    """What the items raised, as something that error handlers take.

    A KeyboardInterrupt or SystemExit of their own (as ``argparse`` raises) is an error like others.
    """
    if isinstance(error, Exception):
        return error
    wrapped = RuntimeError(f"the items of a stream raised {type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped


def frame_bytes(item: object, encode: Callable[[Any], bytes]) -> bytes:
    return item if item.__class__ is bytes else encode(item)


def can_resume_after(item: object) -> bool:
    """Whether a client that saw this item last can resume from exactly here."""
    return isinstance(item, Event) and bool(item.id)


def reconnect_line(jitter: int) -> bytes:
    """The last line of streams that end together: their clients reconnect at different moments."""
    return b"retry: %d\n" % (_FIRST_RECONNECT + random.randint(0, jitter))


@dataclass(slots=True, eq=False)
class Body:
    """A WSGI body whose first piece is known before the server gets it.

    `begin` is called while the application is being called: middleware that wraps
    ``start_response``, and code at the end of Flask's context, see the status of what is sent.
    """

    stream: Stream
    environ: WSGIEnvironment
    start_response: StartResponse

    def begin(self) -> None:
        """Advance the items until the status is known, and call ``start_response``.

        Blocks for the first piece, at most the stream's ``first_byte`` if the transport can.

        Raises:
            EarlyError: the items failed before that: the caller can still answer with an error.
        """
        raise NotImplementedError

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        raise NotImplementedError

    def close(self) -> None:
        """Called by the server in any case, when it is done with the response."""
        raise NotImplementedError


class EarlyError(Exception):
    """The items failed before anything was sent."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error
