from __future__ import annotations

import math

from sseflask.transport.detached.group import DetachedStream, Group
from sseflask.transport.timing import Deadlines


def group(heartbeat: float) -> Group:
    made = Group(True, heartbeat, lambda _: None)
    made.add(DetachedStream(1, made, 0.0, 0))
    return made


def test_a_group_is_silent_after_its_heartbeat_and_then_again() -> None:
    deadlines, one = Deadlines(), group(10)
    deadlines.add(one, 100)
    assert deadlines.next() == 110
    assert deadlines.silent(109.9) == []
    assert deadlines.silent(110) == [one]
    assert deadlines.silent(110) == []
    assert deadlines.next() == 120


def test_an_event_puts_it_off() -> None:
    deadlines, one = Deadlines(), group(10)
    deadlines.add(one, 100)
    one.last_sent = 105
    assert deadlines.silent(110) == []
    assert deadlines.next() == 115
    assert deadlines.silent(115) == [one]


def test_an_empty_group_is_forgotten_until_somebody_joins() -> None:
    deadlines, one = Deadlines(), group(10)
    deadlines.add(one, 100)
    one.remove(one.all_streams[0])
    assert deadlines.silent(110) == []
    assert deadlines.next() == math.inf
    one.add(DetachedStream(2, one, 0.0, 0))
    deadlines.add(one, 120)
    deadlines.add(one, 125)
    assert deadlines.next() == 130
    assert deadlines.silent(130) == [one]


def test_members_end_in_time_and_once() -> None:
    deadlines, one = Deadlines(), group(10)
    first, second, third = (DetachedStream(number, one, 0.0, 0) for number in (1, 2, 3))
    deadlines.end_at(first, 50.01)
    deadlines.end_at(second, 50.02)
    deadlines.end_at(third, 40.0)
    assert deadlines.over(39.9) == []
    assert deadlines.over(40.0) == [third]
    deadlines.forget(second)
    deadlines.forget(third)
    assert 50.01 <= deadlines.next() <= 50.11
    assert deadlines.over(50.01) == []
    assert deadlines.over(50.11) == [first]
    assert deadlines.over(1000.0) == []
    assert deadlines.next() == math.inf


def test_those_that_have_left_take_no_room() -> None:
    deadlines, one = Deadlines(), group(10)
    for number in range(1000):
        member = DetachedStream(number, one, 0.0, 0)
        deadlines.end_at(member, 50.0 + number)
        deadlines.forget(member)
    assert deadlines.next() == math.inf
    assert not deadlines._ends
    assert not deadlines._moments
