"""Two machines with a Redis server: services with nothing in common but that and the port.

python -m benchmarks.servers.sseflask_redis_machines 8000 runs both. Each has a master process of
its own, and no files. The kernel gives each connection to one of them, as a load balancer does.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from dataclasses import replace

from benchmarks.servers import sseflask_redis

_MACHINES = 2
_BACKLOG = 2048

STACK = replace(
    sseflask_redis.STACK,
    name="sseflask_redis_machines",
    title="two machines of the sseflask service, one Redis",
    command=(sys.executable, "-m", "benchmarks.servers.sseflask_redis_machines", "{port}"),
    routes={
        name: sseflask_redis.STACK.routes[route]
        for name, route in (
            ("subscribe", "subscribe"),
            ("publish", "publish"),
            ("publish_across", "publish"),
        )
    },
)


def main(port: int) -> None:
    """Run the machines until the first of them ends."""
    listeners = [_listener(port) for _ in range(_MACHINES)]
    machines = [_start(listener) for listener in listeners]
    machines[0].wait()


def _listener(port: int) -> socket.socket:
    """Listen beside the other machine: the kernel deals connections out to both."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(_BACKLOG)
    return listener


def _start(listener: socket.socket) -> subprocess.Popen[bytes]:
    command = list(sseflask_redis.STACK.command)
    command[command.index("--bind") + 1] = f"fd://{listener.fileno()}"
    return subprocess.Popen(command, pass_fds=[listener.fileno()])


if __name__ == "__main__":
    main(int(sys.argv[1]))
