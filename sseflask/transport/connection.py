"""The transport that owns the socket: gunicorn's gevent workers, HTTP/1, no TLS.

Head and body are written to the socket from the request's own greenlet; docs/architecture.md has
the path of an item. A `SocketReader` notices that the client leaves while the iterable blocks, and
a `StreamTimer` looks at what is due.
"""

from __future__ import annotations

import contextlib
import io
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

import gevent

from sseflask.counters.counts import COUNTS
from sseflask.errors import Failure
from sseflask.logs.once import name_of, warn_once
from sseflask.transport import accounting
from sseflask.transport.gunicorn.drain import worker_drain
from sseflask.transport.item_sender import Diverted, ItemSender, Stop
from sseflask.transport.portable import PortableBody
from sseflask.transport.socket_reader import SocketReader, read_request_body
from sseflask.transport.socket_writer import SocketWriter
from sseflask.transport.sockets import LINGER_SECONDS, set_user_timeout
from sseflask.transport.stream import Body, EarlyError, as_exception
from sseflask.transport.stream_greenlet import Killed, StreamGreenlet
from sseflask.transport.stream_timer import StreamTimer

if TYPE_CHECKING:
    from sseflask.transport.gunicorn.server_response import ServerResponse

Of = TypeVar("Of")


# An instance with a dictionary would take a kilobyte more.
@dataclass(slots=True, eq=False)
class Connection(Body):
    """One stream on a socket of gunicorn's gevent worker.

    A stream whose items are advanced in the view's contexts runs to its end in `begin`, any other
    goes on when the server asks for the next piece. There are never any pieces for the server.

    Everything here runs in the worker's main thread: in the request's greenlet, in the event loop
    (watchers and timers), or in a greenlet that calls `rotate` or `fail`.
    """

    server: ServerResponse
    _reader: SocketReader = field(init=False)
    _sender: ItemSender = field(init=False)
    _timer: StreamTimer = field(init=False)
    _body_complete: bool = field(init=False, default=False)
    _goes_on: bool = field(init=False, default=False)
    _closed: bool = field(init=False, default=False)
    _portable: PortableBody | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        stream, environ, client = self.stream, self.environ, self.environ["gunicorn.socket"]
        greenlet = StreamGreenlet()
        writer = SocketWriter(client, greenlet, COUNTS.streams[stream.kind])
        self._reader = SocketReader(client, writer.descriptor, greenlet)
        self._sender = ItemSender(stream, environ, self.start_response, self.server, writer)

    # -- the request's greenlet ---------------------------------------------------------------

    # No more calls than these, and no generator: the stack of a stream that waits is kept, and
    # copied whenever the stream goes on.

    def begin(self) -> None:
        self._run(first=True)

    def __next__(self) -> bytes:
        if self._goes_on:
            self._run(first=False)
        if self._portable is not None:
            return next(self._portable)
        raise StopIteration

    def close(self) -> None:
        """The server is done; a stream that never ran still has to close its items."""
        if self._goes_on:
            self._goes_on = False
            self._release()
        self._sender.items = None  # large ones would wait for the collector
        if self._portable is not None:
            self._portable.close()
        else:
            self._close_items()

    def _run(self, first: bool) -> None:
        """Run the stream, or the part of it that comes before the end of the view's contexts."""
        self._goes_on = False
        try:
            if first:
                self._open()
            whole = not first or self.stream.keeps_view
            if whole:
                self._goes_on = self._serve(ItemSender.send, self._sender)
            else:
                self._goes_on = self._serve(type(self)._begin_items, self)
            if self._goes_on or self._detached():
                return
            if not self._sender.started:
                # Also if the client has left: gunicorn logs the status.
                self._serve(ItemSender.begin_response, self._sender)
            self._finish()
        except EarlyError:
            self.server.reset()
            self._sender.writer.buffer.clear()
            if not self._body_complete:
                self.server.close_afterwards()  # the rest of the body may be long in coming
            raise
        except Diverted:
            self._divert()
        finally:
            if not self._goes_on:
                self._release()

    def _open(self) -> None:
        self._timer = StreamTimer(self._sender)
        began = self._sender.began = self._timer.began
        self._sender.flusher.computations.begin(began)
        self._body_complete = read_request_body(self.environ, self.server)
        self._sender.writer.start_user_timeout(self.stream.heartbeat)
        if self._body_complete:  # what comes in from here on is the next request
            self._reader.start()
        self._timer.set()
        worker_drain.register(self)

    def _release(self) -> None:
        """Leave the connection to the server."""
        sender, writer = self._sender, self._sender.writer
        if self._body_complete and self._portable is None:
            self.server.set_unread_body(io.BytesIO())  # gunicorn would read it once more
        worker_drain.unregister(self)
        self._timer.close()
        if sender.counted:
            sender.counted = False
            accounting.ended(
                self.stream.kind,
                sender.reason,
                sender.log_fields,
                time.monotonic() - sender.began,
                writer.events_sent,
                writer.body_sent,
            )
        if writer.body_sent:
            self.server.count_sent(writer.body_sent)
        if self._reader.data:
            self.server.append_to_next_request(self._reader.data)
            self._reader.data = b""
        self._reader.close()
        writer.close()

    def _serve(self, run: Callable[[Of], bool | None], of: Of) -> bool:
        """Advance the items. Returns whether there are more; if not they are closed.

        ``run`` is no bound method: that would be kept for each stream.
        """
        more: bool | None = False
        sender, greenlet = self._sender, self._sender.greenlet
        try:
            try:
                more = run(of)
            except (Stop, Killed):
                pass  # asked to end, and done with it
            except Diverted:
                more = True
                raise
            finally:
                if not more:
                    self._close_items()
        except gevent.GreenletExit:  # the worker is killing this greenlet
            sender.reason = "drain"
            sender.writer.flush()
            sender.writer.shut_down()
            raise
        except Diverted:
            raise
        except BaseException as raised:
            error = as_exception(raised)
            if not sender.started and not greenlet.client_left:
                raise EarlyError(error) from raised
            sender.failure = self.stream.report(error)
        if sender.failure is not None and not sender.started and not greenlet.client_left:
            raise EarlyError(sender.start_error or sender.failure)
        return bool(more)

    def _begin_items(self) -> bool:
        """Send the first item. Returns whether there may be more."""
        return self._sender.send(first_only=True)

    def _close_items(self) -> None:
        if not self._closed:
            self._closed = True
            self.stream.response.close()

    def _detached(self) -> bool:
        """Whether the stream goes on without this greenlet."""
        return False

    def _divert(self) -> None:
        """Go on as on any other server, because middleware changes what is sent."""
        warn_once(
            f"{name_of(self.start_response)} holds back or changes the headers of event streams, "
            "which therefore pass through it piece by piece: clients that leave are noticed late, "
            "and streams are cut when the worker stops."
        )
        sender = self._sender
        items = self.stream.items if self.stream.source else sender.items
        stream = replace(self.stream, items=() if items is None or self._closed else items)
        self._portable = PortableBody(stream, self.environ, self.start_response)
        self._portable.go_on(bytes(sender.writer.buffer), sender.log_fields)
        sender.counted = False

    def _finish(self) -> None:
        """Send the last bytes and the last chunk, then let the client close first."""
        sender, writer = self._sender, self._sender.writer
        if sender.failure is not None:
            writer.flush()
        writer.wait_until_sent()
        last = sender.last_bytes()
        if last is None:
            return
        if writer.greenlet.client_left:
            writer.end_half_closed(last)
            return
        writer.end(last)
        self._timer.close()
        if not writer.greenlet.client_left:
            self._keep_or_close()

    def _keep_or_close(self) -> None:
        """Leave the connection to the next request, or close our side and wait for the client's."""
        client, keep = self._sender.writer.socket, self._sender.reusable
        if keep and worker_drain.draining:
            keep = self._reader.wait_for_request(LINGER_SECONDS)
        if keep:
            self.server.keep_open()
            set_user_timeout(client, 0)
            return
        with contextlib.suppress(OSError):  # the client may have been faster
            client.shutdown(socket.SHUT_WR)
            self._reader.discard_until_closed(LINGER_SECONDS)

    # -- ways to end it, from anywhere, never blocking -----------------------------------------

    def rotate(self) -> None:
        """End the stream, as all others, as soon as its client can resume where it is."""
        self._sender.rotate(with_others=True)

    def fail(self, failure: Failure) -> None:
        """End with an error: in band, or as the response while that is possible."""
        self._sender.fail(failure)
