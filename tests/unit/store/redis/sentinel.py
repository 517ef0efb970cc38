"""A Sentinel that says which server is the master."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from tests.live.kit.servers import free_port
from tests.live.kit.waiting import until


def answers(server: Redis) -> bool:
    try:
        return bool(server.ping())
    except RedisError:
        return False


@contextmanager
def sentinel(program: str, master: int, folder: Path) -> Iterator[tuple[int, Redis]]:
    """Its port and a client; it calls the server at the port ``master`` "main"."""
    port = free_port()
    settings = folder / "sentinel.conf"
    settings.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
        f"sentinel monitor main 127.0.0.1 {master} 1\n"
        "sentinel down-after-milliseconds main 60000\n"
    )
    process = subprocess.Popen([program, str(settings), "--sentinel"], stdout=subprocess.DEVNULL)
    try:
        with closing(Redis(port=port)) as client:
            until(lambda: answers(client), "the sentinel")
            yield port, client
    finally:
        process.kill()
        process.wait(20)
