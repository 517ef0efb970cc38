"""What a response hands to a transport, and the ways a stream can end."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sseflask.counters.counts import Kind, Reason
from sseflask.errors import Failure
from sseflask.event import Event
from sseflask.wire import encode

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from sseflask.transport.detached.group import Group

#: After how many milliseconds the first of the clients come back that were sent away together: a
#: worker that starts takes about as long.
_FIRST_BACK = 500

#: What `Stream.retry_jitter` is unless somebody says otherwise.
RETRY_JITTER = 2500

#: What code is told that wants the whole body of a stream.
UNREADABLE = (
    "An event stream has no body that could be read as a whole: its events are still to come. "
    "Code that reads the body of every response, in after_request for instance, has to leave "
    "streams out: if not response.is_streamed: ..."
)


@dataclass(frozen=True, slots=True)
class Stream:
    """One response's events, and how they are to be sent.

    Attributes:
        items: what the application yields; advanced and closed by one greenlet or thread only.
        encode: turns any item into bytes; ``bytes`` items don't pass through it.
        status: the status line's code and phrase.
        headers: the response headers.
        frames_only: the items are ready-made frames (an upgraded plain response).
        heartbeat: seconds of silence after which a heartbeat is sent.
        first_byte: seconds that the headers wait for the first event.
        lifetime: seconds after which a stream that can be resumed is rotated; 0 for never.
        expires_at: the Unix time at which the stream must end, or ``None``.
        detachable: a source may leave its stream to a group; not where somebody wants to be called
            at the response's end.
        retry: the reconnection time to begin with, in milliseconds; ``None`` leaves it to the
            application and to the client.
        retry_jitter: over how many milliseconds clients that are sent away together come back.
        keeps_view: the items are advanced within the view's contexts (Flask's), which last as long
            as the application is being called.
        context: gives another thread these contexts, once, while it advances the items.
        report: logs an exception from after it and says what the client may be told.
        failure_frame: encodes that.
        close: closes the items and runs the response's own close callbacks.
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
    report: Callable[[Exception], Failure]
    failure_frame: Callable[[Failure], bytes]
    close: Callable[[], None]

    @property
    def source(self) -> Source | None:
        """The items, where they are a source."""
        return self.items if isinstance(self.items, Source) else None

    @property
    def kind(self) -> Kind:
        """Where the events come from, as it is counted."""
        return "stream" if self.source is None else self.source.kind

    @property
    def all_headers(self) -> list[tuple[str, str]]:
        """The response's headers, with those that are known when it begins."""
        late = [] if self.source is None else [*self.source.late_headers()]
        if not late:
            return self.headers
        names = {name.lower() for name, _ in late}
        return [*(each for each in self.headers if each[0].lower() not in names), *late]

    @property
    def opening(self) -> bytes:
        """What precedes the first event; one newline, so that it is part of that event."""
        return b"" if self.retry is None else b"retry: %d\n" % self.retry


class Source(ABC):
    """Items that many streams share: frames with ids, so a client can resume after any of them.

    Advanced by one greenlet or thread, in one of three ways: by its `frames`, which wait for what
    comes next; with `get`, which waits for a time; or by its `history`, after which the stream may
    join a group of others and be served without a greenlet of its own. Before any of them `first`
    may be used.

    Attributes:
        kind: what its streams are counted as.
        events: how many events there were in the frames that it has given.
    """

    kind: Kind = "channel"
    events = 0

    @property
    def resumable(self) -> bool:
        """Whether a client that is sent away now comes back to where it was."""
        return True

    def first(self, timeout: float) -> Iterator[bytes]:  # noqa: ARG002  # for those that wait
        """Give the first frames, where the response's headers are to wait for them.

        Blocks for them, at most ``timeout`` seconds. What it raises becomes an error response.
        """
        return iter(())

    def late_headers(self) -> Iterable[tuple[str, str]]:
        """Response headers that are known by the time that `first` is over. Never blocks."""
        return ()

    @property
    def ended(self) -> bool:
        """Whether all frames have been given, and none will follow."""
        return False

    @property
    def reason(self) -> Reason:
        """Why it has ended, once it has by itself."""
        return "done"

    def __iter__(self) -> Iterator[bytes]:
        """Refuse: whoever wants all of it, to log or to measure a response, would never get it.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError(UNREADABLE)

    @abstractmethod
    def frames(self) -> Iterator[bytes]:
        """Give frames until it has `ended`; blocks for what is not there yet."""

    @abstractmethod
    def get(self, timeout: float) -> tuple[bytes, bool] | None:
        """Give the next frames, and whether the stream can be resumed after them.

        Returns ``None`` after ``timeout`` seconds. Raises StopIteration once it has ended or is
        abandoned.
        """

    @abstractmethod
    def history(self) -> Iterator[bytes]:
        """Give the frames that are there already; stops when only new ones are left to come."""

    @abstractmethod
    def join(self, chunked: bool, heartbeat: float) -> Group | None:
        """Leave all that comes from here on to a group.

        Never blocks and never lets others run, so nothing comes twice or gets lost in between.

        Args:
            chunked: whether the body is sent in chunks (RFC 9112, section 7.1).
            heartbeat: seconds of silence after which the group sends one.

        Returns:
            the group, or ``None`` where something has come in the meantime, be it the end: ask
            `history` again.
        """

    def refusal(self) -> Failure:
        """What a client is told where there is no room for it."""
        return too_many_subscribers()

    def send_away(self) -> None:  # noqa: B027  # for sources that ask who views them
        """The client is being sent away, to come back; `abandon` follows. Never blocks."""

    @abstractmethod
    def abandon(self) -> None:
        """Nobody wants more; wakes who waits in `get`. Any thread; harmless to repeat."""

    def close(self) -> None:
        """Called with the response."""
        self.abandon()


def as_exception(error: BaseException) -> Exception:
    """What the items raised, as something that error handlers take.

    A GeneratorExit, KeyboardInterrupt or SystemExit (``argparse`` raises one) of the application's
    own is its error like any other.
    """
    if isinstance(error, Exception):
        return error
    wrapped = RuntimeError(f"the items of a stream raised {type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped


def frame_bytes(item: object, encode: Callable[[Any], bytes]) -> bytes:
    """The bytes of one item."""
    return item if item.__class__ is bytes else encode(item)


def can_resume_after(item: object) -> bool:
    """Whether a client that saw this item last can come back to exactly here."""
    return isinstance(item, Event) and bool(item.id)


def failure_event(failure: Failure) -> Event:
    """How a failure is told in band unless a response has its own way."""
    return Event(failure.json(), event="failure")


def failure_frame(failure: Failure) -> bytes:
    """The bytes of `failure_event`."""
    return encode(failure_event(failure))


def rotation_notice(jitter: int) -> bytes:
    """The last line of a stream that is sent away with others: not all come back in one moment.

    Args:
        jitter: `Stream.retry_jitter`.
    """
    return b"retry: %d\n" % (_FIRST_BACK + random.randint(0, jitter))


def shutting_down() -> Failure:
    """What clients of a stream that can't be resumed are told when the server stops."""
    return Failure(
        "The server is shutting down; please try again.",
        status=503,
        code="shutting_down",
        headers={"Retry-After": "1"},
        transient=True,
    )


def too_many_streams() -> Failure:
    """What a client is told when this worker has no room for one more that takes long."""
    return _too_many("streams")


def too_many_subscribers() -> Failure:
    """The same for a subscriber."""
    return _too_many("subscribers")


def _too_many(what: str) -> Failure:
    return Failure(
        f"This server has as many {what} as it can take; please try again.",
        status=503,
        code=f"too_many_{what}",
        headers={"Retry-After": "5"},
        transient=True,
    )


def body_too_slow() -> Failure:
    """What a client is told whose chunked request body does not arrive."""
    return Failure(
        "The request's body did not arrive in time; please send it again.",
        status=408,
        type="invalid_request_error",
        code="request_timeout",
    )


def half_closed() -> Failure:
    """What a client is told that has closed its side of the connection before the stream's end."""
    return Failure(
        "The client closed its side of the connection, which counts as leaving; keep it open "
        "while the stream is read.",
        status=400,
        type="invalid_request_error",
        code="client_left",
    )


def token_expired() -> Failure:
    """What a client is told when its token's time is over."""
    return Failure(
        "The token has expired; get a new one and reconnect.",
        status=401,
        type="authentication_error",
        code="token_expired",
    )


class Body:
    """A WSGI body whose first piece is known before the server gets it.

    `begin` is called while the application is being called: whoever has wrapped ``start_response``,
    or looks at the end of Flask's context, sees the status of what is really sent.
    """

    __slots__ = ("environ", "start_response", "stream")

    def __init__(
        self, stream: Stream, environ: WSGIEnvironment, start_response: StartResponse
    ) -> None:
        self.stream = stream
        self.environ = environ
        self.start_response = start_response

    def begin(self) -> None:
        """Advance the items until the status is known, and call ``start_response``.

        Blocks for the first piece, at most the stream's ``first_byte`` where that can be.

        Raises:
            EarlyError: they failed before; an error can be answered in place of the stream.
        """
        raise NotImplementedError

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        """The next piece."""
        raise NotImplementedError

    def close(self) -> None:
        """Called by the server when it is done with the response, whatever happened."""
        raise NotImplementedError


class Refused(Body):
    """The body of a stream that never begins."""

    def __init__(self, failure: Failure, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._failure = failure

    def begin(self) -> None:
        raise EarlyError(self._failure)

    def close(self) -> None:
        self.stream.close()


class EarlyError(Exception):
    """The items failed before anything was sent."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error
