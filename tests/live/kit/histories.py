"""What clients have recorded of a service, and whether it kept its promises. Pure: no I/O.

In the manner of Jepsen: publishers, subscribers and viewers record what they get while things
break, and afterwards the records are compared. Clients must not know that an id of an event is
`<epoch>-<number>`, but this does. No time is looked at, only what was delivered, and to whom.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from operator import itemgetter
from typing import NamedTuple

__all__ = [
    "Delivered",
    "Frame",
    "Gap",
    "Published",
    "SubscriberHistory",
    "ViewerHistory",
    "problems_of_channels",
    "problems_of_runs",
]


class Published(NamedTuple):
    """An event that a publisher has tried to publish."""

    channel: str
    data: str  # no two events of all publishers have the same
    id: str | None  # None if it was never acknowledged


class Delivered(NamedTuple):
    """An event that a subscriber got."""

    id: str
    data: str


class Gap(NamedTuple):
    """A gap event: what is missing, as a subscriber got it."""

    reason: str
    channels: Collection[str]
    oldest: str | None
    newest: str | None


@dataclass
class SubscriberHistory:
    """What one subscriber got, over all its connections."""

    name: str
    channels: Collection[str]
    #: The id from which it began; None if it never got one.
    start: str | None = None
    steps: list[Delivered | Gap] = field(default_factory=list)
    #: Whether it was still there when all was quiet, and so has to have everything.
    stayed: bool = True


class Frame(NamedTuple):
    """An event of a run that a viewer got."""

    number: int
    event: str
    data: str


@dataclass
class ViewerHistory:
    """What one viewer got of a run from its start, over all its connections."""

    name: str
    run: str
    frames: list[Frame] = field(default_factory=list)
    stayed: bool = True


#: Types of events that end a run.
ENDS = ("done", "failure")
Place = tuple[int, int]
"""Where an id is in the order of all: which epoch it is of, and the number in it."""


class _Order:
    """The one order of all ids: epochs follow each other as somebody has seen them follow."""

    def __init__(self, sequences: Sequence[Sequence[str]]) -> None:
        self.problems: list[str] = []
        followers: dict[str, set[str]] = {}
        for ids in sequences:
            epochs = [epoch_of(each) for each in ids]
            for epoch in epochs:
                followers.setdefault(epoch, set())
            for before, after in pairwise(epochs):
                if before != after:
                    followers[before].add(after)
        self._rank: dict[str, int] = {}
        while followers:
            behind = set().union(*followers.values())
            first = sorted(set(followers) - behind)
            if not first:
                self.problems.append(f"epochs come in two orders: {sorted(followers)}")
                first = sorted(followers)
            for epoch in first:
                self._rank[epoch] = len(self._rank)
                del followers[epoch]

    def place(self, event_id: str) -> Place:
        return self._rank[epoch_of(event_id)], int(event_id.rpartition("-")[2])


def epoch_of(event_id: str) -> str:
    return event_id.rpartition("-")[0]


def problems_of_channels(
    publishers: Sequence[Sequence[Published]], subscribers: Sequence[SubscriberHistory]
) -> list[str]:
    """What is wrong with what subscribers got; nothing if the list is empty.

    Each event that is stored is delivered to each subscriber of its channel exactly once, in one
    order, or is covered by a gap. Stored is what was acknowledged, and what anybody got.

    Args:
        publishers: what each publisher has published, in order.
        subscribers: what subscribers got.
    """
    return list(_problems_of_channels(publishers, subscribers))


def _problems_of_channels(
    publishers: Sequence[Sequence[Published]], subscribers: Sequence[SubscriberHistory]
) -> Iterator[str]:
    known = {each.data: each for events in publishers for each in events}
    acknowledged = [[each.id for each in events if each.id] for events in publishers]
    order = _Order([*acknowledged, *map(_ids_of, subscribers)])
    yield from order.problems
    for n, ids in enumerate(acknowledged):
        for before, after in pairwise(ids):
            if order.place(before) >= order.place(after):
                yield f"publisher {n} got {after} after {before}"

    # Each event has one id, whoever tells it, and each id is of one event. One that was lost before
    # it was acknowledged is published again, and has an id of a new epoch.
    stored: dict[str, str] = {}
    ids_of_data: dict[tuple[str, str], str] = {}
    delivered = [Delivered(each.id, each.data) for each in known.values() if each.id]
    for subscriber in subscribers:
        delivered += (step for step in subscriber.steps if isinstance(step, Delivered))
    for event_id, data in delivered:
        if stored.setdefault(event_id, data) != data:
            yield f"{event_id} is {stored[event_id]!r} and {data!r}"
        known_id = ids_of_data.setdefault((epoch_of(event_id), data), event_id)
        if known_id != event_id:
            yield f"{data!r} is {known_id} and {event_id}"
    log: dict[str, list[tuple[Place, str]]] = {}
    for event_id, data in stored.items():
        if data in known:
            log.setdefault(known[data].channel, []).append((order.place(event_id), event_id))
    for events in log.values():
        events.sort()
    for subscriber in subscribers:
        for problem in _problems_of_reading(subscriber, known, log, order):
            yield f"{subscriber.name}: {problem}"


def _ids_of(subscriber: SubscriberHistory) -> list[str]:
    """The ids in the order in which a subscriber got them."""
    ids = [] if subscriber.start is None else [subscriber.start]
    for step in subscriber.steps:
        known = (step.id,) if isinstance(step, Delivered) else (step.oldest, step.newest)
        ids += filter(None, known)
    return ids


def _problems_of_reading(
    subscriber: SubscriberHistory,
    known: Mapping[str, Published],
    log: Mapping[str, Sequence[tuple[Place, str]]],
    order: _Order,
) -> Iterator[str]:
    at = None if subscriber.start is None else order.place(subscriber.start)
    # Of each channel, up to where it has everything, and the gaps since.
    complete = dict.fromkeys(subscriber.channels, at)
    gaps: dict[str, list[Gap]] = {channel: [] for channel in subscriber.channels}

    def lost(channel: str, upto: Place | None) -> Iterator[str]:
        """The events of a channel up to here that it did not get, and that no gap covers."""
        begin, stored = complete[channel], log.get(channel, ())
        if begin is None:
            return
        for n in range(bisect_right(stored, begin, key=itemgetter(0)), len(stored)):
            place, event_id = stored[n]
            if upto is not None and place >= upto:
                break
            if not any(_covers(gap, place, begin, upto, order) for gap in gaps[channel]):
                yield f"{event_id} in {channel} is lost"

    for step in subscriber.steps:
        if isinstance(step, Gap):
            for channel in step.channels:
                gaps[channel].append(step)
            continue
        place = order.place(step.id)
        if at is not None and place <= at:
            yield f"{step.id} came when it had everything up to number {at[1]}"
            continue
        if at is None:
            complete = dict.fromkeys(subscriber.channels, place)
        at = place
        if step.data not in known:
            yield f"{step.id} {step.data!r} was never published"
            continue
        channel = known[step.data].channel
        if channel not in subscriber.channels:
            yield f"{step.id} is of {channel}, to which it does not subscribe"
            continue
        yield from lost(channel, place)
        complete[channel], gaps[channel] = place, []
    if subscriber.stayed:
        if at is None and log:
            yield "it got nothing at all"
        for channel in sorted(subscriber.channels):
            yield from lost(channel, None)


def _covers(gap: Gap, place: Place, begin: Place, end: Place | None, order: _Order) -> bool:
    """Whether a gap between two events of a channel says that the one at this place is missing.

    What is missing of a channel is what came before something that is stored. Of several channels
    it may be anything up to the newest event that is stored.
    """
    if gap.reason == "unknown":
        return True  # only what is published after it follows
    if gap.oldest is not None and len(gap.channels) == 1:
        return place < order.place(gap.oldest)
    if gap.newest is not None:
        first = gap.oldest is not None and place == order.place(gap.oldest)
        return place <= order.place(gap.newest) and not first
    # Nothing of the channel was stored then. What is published after the gap is not missing, but
    # only the next event shows where that begins.
    return end is not None or gap.reason == "trimmed" or place[0] <= begin[0]


def problems_of_runs(
    texts: Mapping[str, Sequence[str]],
    viewers: Sequence[ViewerHistory],
    failures: Collection[str] = ("interrupted",),
) -> list[str]:
    """What is wrong with what viewers got; nothing if the list is empty.

    Each viewer sees the frames of its run once, in order, the same as others, then one end.

    Args:
        texts: all texts of each run, in the order in which its generator gives them.
        viewers: what viewers got.
        failures: the codes with which a run may fail.
    """
    return list(_problems_of_runs(texts, viewers, failures))


def _problems_of_runs(
    texts: Mapping[str, Sequence[str]], viewers: Sequence[ViewerHistory], failures: Collection[str]
) -> Iterator[str]:
    frames: dict[str, dict[int, Frame]] = {}
    for viewer in viewers:
        seen = frames.setdefault(viewer.run, {})
        for frame in viewer.frames:
            if seen.setdefault(frame.number, frame) != frame:
                yield f"{viewer.name}: {frame} is {seen[frame.number]} elsewhere"
    for run, seen in frames.items():
        whole = [seen[number] for number in sorted(seen)]
        ends = [frame for frame in whole if frame.event in ENDS]
        if len(ends) > 1 or ends != [frame for frame in whole[-1:] if frame.event in ENDS]:
            yield f"run {run} has the ends {ends}, and then {whole[-1:]}"
        said = [frame.data for frame in whole if frame.event not in ENDS]
        if said != list(texts[run][: len(said)]):
            yield f"run {run} says {said}, which is not what it has to say"
        if ends and ends[0].event == "done" and len(said) != len(texts[run]):
            yield f"run {run} is done after {len(said)} of {len(texts[run])} texts"
        if (
            ends
            and ends[0].event == "failure"
            and not any(f'"{x}"' in ends[0].data for x in failures)
        ):
            yield f"run {run} ended with {ends[0].data}"
    for viewer in viewers:
        numbers = [frame.number for frame in viewer.frames]
        for before, after in pairwise(numbers):
            if before >= after:
                yield f"{viewer.name}: frame {after} came after {before}"
        everything = frames[viewer.run]
        last = max(everything, default=0) if viewer.stayed else max(numbers, default=0)
        missing = {number for number in everything if number <= last} - set(numbers)
        if missing:
            yield f"{viewer.name}: frames {sorted(missing)} are lost"
        ended = [frame for frame in viewer.frames if frame.event in ENDS]
        if viewer.stayed and not ended:
            yield f"{viewer.name}: got no end"
