"""Clients that record what they get, in order, for `tests.live.kit.histories`."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from tests.live.kit.events import Sent
from tests.live.kit.histories import ENDS, Delivered, Frame, Gap, SubscriberHistory, ViewerHistory
from tests.live.kit.subscribers import Subscriber


class RecordedSubscriber(Subscriber):
    """A subscriber to channels whose names the test knows.

    Args:
        name: what to call it in messages.
        channels: which channels each of its names and patterns stands for.
        options: those of `Subscriber`, but for the path.
    """

    def __init__(self, name: str, channels: Mapping[str, Collection[str]], **options: Any) -> None:
        super().__init__("/channels?" + "&".join(f"c={each}" for each in channels), **options)
        self._channels = channels
        everything = frozenset[str]().union(*channels.values())
        self.history = SubscriberHistory(name, everything, self.last_id)

    def _head(self) -> bool:
        complete = super()._head()
        self._record_start()
        return complete

    def _record_start(self) -> None:
        if self.history.start is None and not self.history.steps:
            self.history.start = self.last_id

    def _dispatch(self, event: Sent) -> None:
        super()._dispatch(event)
        if event.data is None:
            self._record_start()
        elif event.event == "gap":
            said = json.loads(event.data)
            channels = self._channels[said["channel"]]
            gap = Gap(said["reason"], channels, said["oldest"], said["newest"])
            self.history.steps.append(gap)
        elif event.event != "failure":
            self.history.steps.append(Delivered(event.id or "", event.data))


class RecordedViewer(Subscriber):
    """A viewer of one run, from its start.

    Args:
        name: what to call it in messages.
        run: the id of the run.
        options: those of `Subscriber`, but for the path.
    """

    def __init__(self, name: str, run: str, **options: Any) -> None:
        super().__init__(f"/runs/{run}?format=text", last_id=f"{run}.0", **options)
        self.history = ViewerHistory(name, run)

    @property
    def ended(self) -> bool:
        """Whether it got the end of the run."""
        return any(frame.event in ENDS for frame in self.history.frames)

    def _dispatch(self, event: Sent) -> None:
        super()._dispatch(event)
        # A failure without an id is one of the connection: the run goes on.
        if event.data is not None and event.id is not None:
            run, _, number = event.id.partition(".")
            assert run == self.history.run, event
            frame = Frame(int(number), event.event or "message", event.data)
            self.history.frames.append(frame)
