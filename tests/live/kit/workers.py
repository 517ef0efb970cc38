"""Which worker of a server serves which connection: the kernel decides that, and can be asked."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psutil

from tests.live.kit.connection import Connection
from tests.live.kit.servers import Server
from tests.live.kit.sockets import inode, owners
from tests.live.kit.waiting import until


def _owners(server: Server, connection: Connection) -> list[psutil.Process]:
    """The worker that has accepted a connection, or none."""
    return owners(server.workers(), inode(server.port, connection.socket.getsockname()[1]))


def worker_of(server: Server, connection: Connection) -> psutil.Process:
    """The worker that serves a connection."""
    (found,) = _owners(server, connection)
    return found


def other_worker(server: Server, worker: psutil.Process | Connection) -> psutil.Process:
    """The other one of two workers, or the one that does not serve this connection."""
    known = worker_of(server, worker) if isinstance(worker, Connection) else worker
    (found,) = [each for each in server.workers() if each.pid != known.pid]
    return found


def connect_to(server: Server, worker: psutil.Process) -> Connection:
    """A connection that this worker has accepted; those that another worker got are closed."""

    def attempt() -> Connection | None:
        connection = Connection(server)
        try:
            accepted = until(lambda: _owners(server, connection), "a worker accepts", seconds=60)
            if worker in accepted:
                return connection
        except BaseException:
            connection.close()
            raise
        connection.close()
        return None

    found = until(attempt, f"a connection to worker {worker.pid}", seconds=60)
    assert found is not None
    return found


def connected_to(server: Server, port: int) -> list[psutil.Process]:
    """The workers with an open connection whose other end is this port."""
    found = []
    for worker in server.workers():
        with contextlib.suppress(psutil.Error):  # it is just ending
            known = [each for each in worker.net_connections("tcp4") if each.raddr]
            if any((each.raddr.port, each.status) == (port, "ESTABLISHED") for each in known):
                found.append(worker)
    return found


def listening(server: Server) -> list[psutil.Process]:
    """The workers that take connections: neither draining nor dead."""
    return owners(server.workers(), inode(server.port, 0))


def wait_for_workers(server: Server, count: int) -> None:
    """Wait until this many workers answer: the first may be ready long before the last."""
    answering: set[int] = set()

    def all_answer() -> bool:
        with Connection(server) as connection:
            connection.request("/healthz")
            assert connection.head().status == 200
            answering.update(each.pid for each in _owners(server, connection))
        return len(answering) >= count

    if count > 1:
        until(all_answer, f"{count} workers answer", seconds=60, pause=0.05)


@contextlib.contextmanager
def suspended(worker: psutil.Process) -> Iterator[None]:
    """A worker that stands still: it accepts nothing from the beginning of the block to its end."""
    worker.suspend()
    try:
        until(lambda: worker.status() == psutil.STATUS_STOPPED, f"worker {worker.pid} has stopped")
        yield
    finally:
        worker.resume()
