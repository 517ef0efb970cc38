from __future__ import annotations

from datetime import datetime, timedelta, timezone

from flask import Flask

from sseflask import SSE
from sseflask.extension import channels_of
from sseflask.metrics.collector import FiguresCollector
from tests import redis_server
from tests.live.kit.waiting import until


def test_an_application_is_told_what_its_server_refuses_and_since_when() -> None:
    app = Flask("mine")
    with redis_server.running(redis_server.redis()) as server:
        app.config["SSEFLASK_STORE"] = server.place()
        sse = SSE(app)

        def read_only() -> float:
            (family,) = (
                each
                for each in FiguresCollector(app).collect()
                if each.name == "sseflask_log_read_only"
            )
            return family.samples[0].value

        until(lambda: sse.readiness().log == "available", "the store to be opened")
        found = sse.readiness()
        assert (found.reason, found.since, found.warning) == ("", None, "")
        with server.client() as client:
            client.config_set("maxmemory-policy", "volatile-lru")
            client.config_set("maxmemory", "1")
            until(lambda: sse.readiness().log == "read_only", "it to be noticed")
            found = sse.readiness()
            assert found.ready
            assert read_only() == 1
            assert found.reason.startswith("OOM ")
            assert found.since is not None
            assert timedelta() <= datetime.now(timezone.utc) - found.since < timedelta(minutes=1)
            client.config_set("maxmemory", "0")
            client.execute_command("CLIENT", "KILL", "TYPE", "normal")
        until(lambda: sse.readiness().warning, "the policy to be noticed")
        assert (sse.readiness().log, sse.readiness().since) == ("available", None)
        assert read_only() == 0
        channels_of(app).close()
