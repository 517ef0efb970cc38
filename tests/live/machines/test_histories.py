"""The check of histories finds what is wrong with bad ones, and nothing in good ones."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.live.kit.histories import (
    Delivered,
    Frame,
    Gap,
    Published,
    SubscriberHistory,
    ViewerHistory,
    problems_of_channels,
    problems_of_runs,
)

A, B = "a", "b"
#: Numbers 1 to 6; the fifth was stored, but not acknowledged.
FIRST = [Published(A, "p-0", "e-1"), Published(A, "p-1", "e-3"), Published(A, "p-2", "e-4")]
SECOND = [Published(B, "q-0", "e-2"), Published(B, "q-1", None), Published(B, "q-2", "e-6")]
ALL = [
    Delivered("e-1", "p-0"),
    Delivered("e-2", "q-0"),
    Delivered("e-3", "p-1"),
    Delivered("e-4", "p-2"),
    Delivered("e-5", "q-1"),
    Delivered("e-6", "q-2"),
]


def whole(
    name: str = "reader", *steps: Delivered | Gap, start: str | None = "e-0"
) -> SubscriberHistory:
    """A reader of both channels, which has everything unless the steps are given."""
    return SubscriberHistory(name, {A, B}, start, list(steps or ALL))


def problems(*readings: SubscriberHistory) -> list[str]:
    return problems_of_channels([FIRST, SECOND], readings)


def test_good_histories() -> None:
    assert problems(
        whole(),
        whole("later", *ALL[3:], start="e-3"),
        SubscriberHistory("of a", {A}, "e-0", [ALL[0], ALL[2], ALL[3]]),
        replace(whole("early", *ALL[:2]), stayed=False),
        SubscriberHistory("never", {A, B}, None, [], stayed=False),
        whole("trimmed", ALL[0], Gap("trimmed", {A, B}, "e-4", "e-6"), *ALL[3:]),
        whole("unknown", Gap("unknown", {A, B}, "e-1", "e-4"), *ALL[4:]),
    ) == []  # fmt: skip


def test_what_nobody_got_need_not_be_stored() -> None:
    reading = whole("reader", *ALL[:4], ALL[5])
    assert problems(reading) == []
    assert problems(reading, whole("other")) == ["reader: e-5 in b is lost"]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ((*ALL[:2], *ALL[3:]), ["reader: e-3 in a is lost"]),
        (ALL[1:], ["reader: e-1 in a is lost"]),
        (ALL[:5], ["reader: e-6 in b is lost"]),
        (
            (*ALL[:3], *ALL[2:]),
            ["reader: e-3 came when it had everything up to number 3"],
        ),
        ((*ALL, ALL[0]), ["reader: e-1 came when it had everything up to number 6"]),
        (
            (ALL[0], ALL[2], ALL[1], *ALL[3:]),
            [
                "reader: e-2 came when it had everything up to number 3",
                "reader: e-2 in b is lost",
            ],
        ),
        (
            (*ALL, Delivered("e-7", "from nowhere")),
            ["reader: e-7 'from nowhere' was never published"],
        ),
        (
            (ALL[0], Gap("trimmed", {A}, "e-3", "e-4"), ALL[1], *ALL[3:]),
            ["reader: e-3 in a is lost"],
        ),
        ((Gap("trimmed", {B}, "e-3", "e-6"), *ALL[2:]), ["reader: e-1 in a is lost"]),
        (
            (*ALL[:4], Gap("trimmed", {B}, "e-5", "e-6")),
            ["reader: e-5 in b is lost", "reader: e-6 in b is lost"],
        ),
    ],
    ids=[
        "lost",
        "the first lost",
        "the last lost",
        "doubled",
        "doubled much later",
        "reordered",
        "not published",
        "a gap that covers too little",
        "a gap of another channel",
        "a gap, and then nothing",
    ],
)
def test_a_bad_history(steps: tuple[Delivered | Gap, ...], expected: list[str]) -> None:
    assert problems(whole("reader", *steps), whole("good")) == expected


def test_a_gap_covers_only_what_is_before_the_next_event_of_a_channel() -> None:
    gap = Gap("trimmed", {A, B}, "e-2", "e-6")
    reading = whole("reader", gap, ALL[1], ALL[2], *ALL[4:])
    assert problems(reading, whole()) == ["reader: e-4 in a is lost"]


def test_a_gap_of_several_channels() -> None:
    """Each of them lacks what came first of it, and they lie between each other."""
    gap = Gap("trimmed", {A, B}, "e-1", "e-4")
    of_a = [ALL[0], ALL[2], ALL[3]]
    assert problems(whole("reader", gap, *of_a, *ALL[4:]), whole()) == []
    assert problems(whole("reader", gap, *of_a, ALL[5]), whole()) == ["reader: e-5 in b is lost"]
    assert problems(whole("reader", gap, *ALL[1:]), whole()) == ["reader: e-1 in a is lost"]


def test_two_orders() -> None:
    """Each of them is one in itself."""
    swapped = [Delivered("e-2", "p-0"), Delivered("e-1", "q-0")]
    other = whole("other", swapped[1], swapped[0], *ALL[2:])
    found = problems(whole(), other)
    assert "e-1 is 'p-0' and 'q-0'" in found
    assert "'p-0' is e-1 and e-2" in found


def test_two_orders_with_the_same_ids() -> None:
    other = whole("other", ALL[1], ALL[0], *ALL[2:])
    assert "other: e-1 came when it had everything up to number 2" in problems(whole(), other)


def test_a_doubled_event_has_two_ids() -> None:
    doubled = whole("reader", *ALL, Delivered("e-7", "q-2"))
    assert problems(doubled) == ["'q-2' is e-6 and e-7"]


def test_ids_of_a_publisher_have_to_rise() -> None:
    events = [Published(A, "p-0", "e-2"), Published(A, "p-1", "e-1")]
    assert problems_of_channels([events], []) == ["publisher 0 got e-1 after e-2"]


def test_another_channel() -> None:
    reading = replace(whole("of a"), channels={A})
    assert [each for each in problems(reading) if "does not subscribe" in each] == [
        "of a: e-2 is of b, to which it does not subscribe",
        "of a: e-5 is of b, to which it does not subscribe",
        "of a: e-6 is of b, to which it does not subscribe",
    ]


def test_a_subscriber_that_got_nothing() -> None:
    assert problems(SubscriberHistory("deaf", {A}, None, [])) == ["deaf: it got nothing at all"]


#: Two events before the store was emptied, and two after it.
BEFORE = [Published(A, "p-0", "old-1"), Published(A, "p-1", "old-2")]
AFTER = [Published(A, "p-2", "new-1"), Published(A, "p-3", "new-2")]


def epochs(*steps: Delivered | Gap, start: str = "old-0") -> list[str]:
    return problems_of_channels(
        [[*BEFORE, *AFTER]], [SubscriberHistory("reader", {A}, start, list(steps))]
    )


def test_a_new_epoch() -> None:
    one, two = Delivered("old-1", "p-0"), Delivered("old-2", "p-1")
    three, four = Delivered("new-1", "p-2"), Delivered("new-2", "p-3")
    gap = Gap("epoch", {A}, "new-1", "new-1")
    empty = Gap("epoch", {A}, None, None)
    assert epochs(one, gap, three, four) == []
    assert epochs(one, empty, three, four) == []
    assert epochs(one, two, empty, three, four) == []
    assert epochs(three, four, start="new-0") == []
    assert epochs(one, gap, four) == ["reader: new-1 in a is lost"]
    assert epochs(one, three, four) == ["reader: old-2 in a is lost"]
    assert epochs(one, empty, four) == [], "it may have been lost before the gap as well"
    assert epochs(one, empty) == ["reader: new-1 in a is lost", "reader: new-2 in a is lost"]
    assert epochs(one, empty, three, two, four) != []
    again = Delivered("new-3", "p-1")
    assert epochs(one, two, empty, three, four, again) == [], "it was lost, and published again"
    assert epochs(one, two, Delivered("old-3", "p-1"), empty, three, four) == [
        "'p-1' is old-2 and old-3"
    ]


RUN = "r"
TEXTS = ["one", "two", "three"]
FRAMES = [
    Frame(1, "message", "one"),
    Frame(2, "message", "two"),
    Frame(4, "message", "three"),
    Frame(6, "done", '{"finish_reason": "stop"}'),
]
GOOD = ViewerHistory("good", RUN, FRAMES)
FAILED = [*FRAMES[:2], Frame(3, "failure", '{"error": {"code": "interrupted"}}')]


def run_problems(*frames: Frame, stayed: bool = True) -> list[str]:
    viewing = ViewerHistory("viewer", RUN, list(frames), stayed)
    return problems_of_runs({RUN: TEXTS}, [viewing, GOOD])


def test_good_viewers() -> None:
    assert run_problems(*FRAMES) == []
    assert run_problems(*FRAMES[:2], stayed=False) == []
    assert run_problems(stayed=False) == []
    assert problems_of_runs({RUN: TEXTS}, [ViewerHistory("viewer", RUN, FAILED)]) == []


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ((FRAMES[0], *FRAMES[2:]), ["viewer: frames [2] are lost"]),
        ((FRAMES[0], *FRAMES), ["viewer: frame 1 came after 1"]),
        ((FRAMES[1], FRAMES[0], *FRAMES[2:]), ["viewer: frame 1 came after 2"]),
        (FRAMES[:3], ["viewer: frames [6] are lost", "viewer: got no end"]),
        ((*FRAMES, FRAMES[3]), ["viewer: frame 6 came after 6"]),
        (
            (*FRAMES, Frame(7, "failure", '{"code": "interrupted"}')),
            ["run r has the ends ", "good: frames [7] are lost"],
        ),
        (
            (*FRAMES, Frame(7, "message", "three")),
            ["run r has the ends ", "run r says ", "run r is done ", "good: frames [7] are lost"],
        ),
        (
            (FRAMES[0], Frame(2, "message", "2"), *FRAMES[2:]),
            ["good: Frame(number=2, ", "run r says "],
        ),
        (
            FAILED,
            [
                "run r has the ends ",
                "viewer: frames [4, 6] are lost",
                "good: frames [3] are lost",
            ],
        ),
    ],
    ids=[
        "lost",
        "doubled",
        "reordered",
        "no end",
        "the end twice",
        "two ends",
        "something after the end",
        "another text",
        "another end",
    ],
)
def test_a_bad_viewer(frames: tuple[Frame, ...], expected: list[str]) -> None:
    found = run_problems(*frames)
    assert len(found) == len(expected)
    for problem, beginning in zip(found, expected, strict=True):
        assert problem.startswith(beginning)


def test_what_a_run_may_say() -> None:
    assert problems_of_runs({RUN: ["one", "two"]}, [GOOD]) != []
    assert problems_of_runs({RUN: [*TEXTS, "four"]}, [GOOD]) == ["run r is done after 3 of 4 texts"]
    assert problems_of_runs({RUN: ["two", "one", "three"]}, [GOOD]) != []
    failed = [*FRAMES[:2], Frame(3, "failure", '{"error": {"code": "internal_error"}}')]
    assert problems_of_runs({RUN: TEXTS}, [ViewerHistory("viewer", RUN, failed)]) != []
