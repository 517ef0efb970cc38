"""Events larger than a socket takes at once: continued where they stopped, never cut inside."""

from __future__ import annotations

import contextlib
import signal
from functools import partial
from pathlib import Path

import pytest

from tests.live.kit.clients import Stream, open_stream
from tests.live.kit.publishing import publish
from tests.live.kit.services import service
from tests.live.kit.subscribers import Subscriber
from tests.live.kit.swarm import Swarm

HISTORY = {"SSEFLASK_HISTORY_EVENTS": "100000"}


def large(n: int, size: int = 200_000) -> str:
    """Data of that size in which a misplaced byte shows."""
    return f"{n}:" + "".join(chr(97 + (n + at) % 26) for at in range(26)) * (size // 26)


def has(event_id: str, subscriber: Subscriber) -> bool:
    return subscriber.last_id == event_id


def test_readers_with_small_buffers(tmp_path: Path) -> None:
    """Every event takes many writes; heartbeats and other events wait for their turn."""
    sent = [large(n) if n % 3 else f"small {n}" for n in range(60)]
    subscribers = [Subscriber("/channels/a", receive_buffer=8192) for _ in range(15)]
    # Who takes nothing for two of them is cut, and these may stand still on a busy machine.
    settings = {**HISTORY, "SSEFLASK_HEARTBEAT": "0.5"}
    with (
        service(tmp_path, settings=settings) as server,
        Swarm(server.port, subscribers, coming_back=False) as swarm,
    ):
        swarm.wait_until_connected()
        for start in range(0, len(sent), 6):
            ids = [publish(server, "a", data) for data in sent[start : start + 6]]
            # No faster than they can: who is too far behind is cut, and rightly.
            swarm.wait_for(partial(has, ids[-1]), "has the last event", seconds=40)
        for subscriber in subscribers:
            assert subscriber.data() == sent, "each is whole"
            assert not subscriber.problems, subscriber.problems


@pytest.mark.parametrize("when", ["live", "replay"])
def test_sigterm_while_events_are_under_way(tmp_path: Path, when: str) -> None:
    """The clients read only afterwards: what had begun is finished, then the stream ends."""
    sent = [large(n, 500_000) for n in range(3)]
    # Two heartbeats without a byte taken, and a client is cut: these read one after the other.
    patient = {**HISTORY, "SSEFLASK_HEARTBEAT": "5"}
    with service(tmp_path, "--graceful-timeout", "20", settings=patient) as server:
        first = publish(server, "a", "first")
        with contextlib.ExitStack() as stack:

            def subscribe() -> list[Stream]:
                path = f"/channels/a?last_event_id={first}"
                return [
                    stack.enter_context(open_stream(server, path, receive_buffer=8192))
                    for _ in range(10)
                ]

            streams = subscribe() if when == "live" else []
            ids = [publish(server, "a", data) for data in sent]
            streams = streams or subscribe()
            server.send_signal(signal.SIGTERM)
            for stream in streams:
                events = stream.rest()
                assert [event.id for event in events] == ids[: len(events)]
                assert [event.data for event in events] == sent[: len(events)]
                assert stream.retries, "it is told to reconnect"
        server.wait_until_ended(30)
