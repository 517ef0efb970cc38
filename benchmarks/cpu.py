"""CPU for an event: the server's, and that of the Redis server where there is one."""

from __future__ import annotations

from benchmarks.server_process import Running


class CPUMeter:
    """Counts from its making on."""

    def __init__(self, server: Running) -> None:
        self._server = server
        self._before = self._now()

    def _now(self) -> tuple[float, float]:
        redis = self._server.redis
        return self._server.cpu(), redis.cpu() if redis else 0

    def seconds(self) -> tuple[float, float]:
        """Give the CPU seconds of the server and of its Redis server, 0 if it has none."""
        now = self._now()
        return now[0] - self._before[0], now[1] - self._before[1]

    def per_event(self, events: int) -> dict[str, float]:
        """Give the figures of a sample in which there were so many events."""
        own, redis = self.seconds()
        figures = {"cpu_us_per_event": own / events * 1e6}
        if self._server.redis:
            figures["redis_us_per_event"] = redis / events * 1e6
        return figures
