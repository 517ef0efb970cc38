"""Which of a server's processes has which connection, from the kernel, for any stack."""

from __future__ import annotations

import contextlib
from pathlib import Path

from benchmarks.server_process import Running


def holders(server: Running) -> dict[int, int]:
    """Give the process that holds a connection, by the port of its client's side.

    A connection that nobody has accepted yet is left out.
    """
    clients = _clients(server.port)
    found = {}
    for process in server.processes():
        # Processes and descriptors come and go meanwhile.
        with contextlib.suppress(OSError):
            for entry in Path(f"/proc/{process}/fd").iterdir():
                with contextlib.suppress(OSError):
                    target = str(entry.readlink())
                    if target in clients:
                        found[clients[target]] = process
    return found


def _clients(port: int) -> dict[str, int]:
    """Give the ports of the clients of a server by how /proc names the server's descriptors."""
    clients = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        local, remote = (int(address.rpartition(":")[2], 16) for address in fields[1:3])
        if local == port and remote:
            clients[f"socket:[{fields[9]}]"] = remote
    return clients
