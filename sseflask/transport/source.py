"""Items that can be resumed: what subscriptions and the viewers of runs are to a transport."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from sseflask.counters.counts import Kind, Reason
from sseflask.errors import Failure
from sseflask.transport.failures import worker_full

if TYPE_CHECKING:
    from sseflask.transport.detached.group import Group


#: For code that wants the whole body of a stream.
UNREADABLE = (
    "An event stream has no body that could be read as a whole: its events are still to come. "
    "Code that reads the body of every response, in after_request for instance, has to leave "
    "streams out: if not response.is_streamed: ..."
)


class Source(ABC):
    """Frames with ids, so that a client can resume after any of them.

    One greenlet or thread advances it: by `get`, or by `frames` and `history`, which are made of
    it. After its `history` the stream may join a group of others and be served without a greenlet.
    `first` may come before any of them.

    Attributes:
        kind: what its streams are counted as.
        events: how many events there were in the frames that it has given.
        may_join_at_once: whether `join_at_once` is worth a try.
    """

    kind: Kind = "channel"
    events = 0
    may_join_at_once = False

    @property
    def resumable(self) -> bool:
        """Whether a client can resume from here if the stream ends now."""
        return True

    def first(self, timeout: float) -> Iterator[bytes]:  # noqa: ARG002  # for sources that wait
        """Give the first frames, if the response's headers are to wait for them.

        Blocks for them, at most ``timeout`` seconds. An exception becomes an error response.
        """
        return iter(())

    def extra_headers(self) -> Iterable[tuple[str, str]]:
        """Response headers that are known by the time that `first` is over. Never blocks."""
        return ()

    @property
    def ended(self) -> bool:
        """Whether all frames have been given, and none will follow."""
        return False

    @property
    def reason(self) -> Reason:
        """Why it has ended by itself."""
        return "done"

    def __iter__(self) -> Iterator[bytes]:
        """Raise RuntimeError: code that wants all of it, to log or measure it, would never end."""
        raise RuntimeError(UNREADABLE)

    @abstractmethod
    def get(self, timeout: float | None) -> tuple[bytes, bool] | None:
        """Give the next frames, and whether the stream can be resumed after them.

        Blocks for what is stored, and for what is still to come at most ``timeout`` seconds, or as
        long as that takes if it is ``None``. Gives ``None`` if there are none in time.

        Raises:
            StopIteration: it has ended or is abandoned.
        """

    def history(self) -> Iterator[bytes]:
        """Give the frames that are there already; stops when only new ones are left to come."""
        return self.frames(0.0)

    def frames(self, timeout: float | None = None) -> Iterator[bytes]:
        """Give frames until it has `ended`; blocks for what is not there yet."""
        try:
            while (got := self.get(timeout)) is not None:
                yield got[0]
        except StopIteration:
            return

    @abstractmethod
    def join(self, chunked: bool, heartbeat: float) -> Group | None:
        """Leave all that comes from here on to a group. Neither blocks nor switches.

        Gives ``None`` if something has come in the meantime, such as the end: ask `history` again.
        """

    def join_at_once(
        self,
        chunked: bool,  # noqa: ARG002  # for sources that can
        heartbeat: float,  # noqa: ARG002
    ) -> tuple[bytes, Group] | None:
        """The same in place of all the rest, if there is nothing but some first bytes to be given.

        Gives these, and the group; ``None`` if it has to be asked for its frames. Neither blocks
        nor switches.
        """
        return None

    def refusal(self) -> Failure:
        """The error response if there is no room for the client."""
        return worker_full("subscribers")

    def will_reconnect(self) -> None:  # noqa: B027  # for sources that count their viewers
        """The stream ends now and its client will reconnect; `abandon` follows. Never blocks."""

    @abstractmethod
    def abandon(self) -> None:
        """Nobody wants more: `get` and `frames` end. Any thread; harmless to repeat."""

    def close(self) -> None:
        self.abandon()
