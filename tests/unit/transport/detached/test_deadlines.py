from __future__ import annotations

import math

from sseflask.transport.detached.deadlines import Agenda
from sseflask.transport.detached.group import DetachedStream, Group


def group(heartbeat: float) -> Group:
    made = Group(True, heartbeat, lambda _: None)
    made.add(DetachedStream(1, made, 0.0, 0))
    return made


def test_a_group_is_silent_after_its_heartbeat_and_then_again() -> None:
    agenda, one = Agenda(), group(10)
    agenda.watch(one, 100)
    assert agenda.next() == 110
    assert agenda.silent(109.9) == []
    assert agenda.silent(110) == [one]
    assert agenda.silent(110) == []
    assert agenda.next() == 120


def test_an_event_puts_it_off() -> None:
    agenda, one = Agenda(), group(10)
    agenda.watch(one, 100)
    one.last_sent = 105
    assert agenda.silent(110) == []
    assert agenda.next() == 115
    assert agenda.silent(115) == [one]


def test_an_empty_group_is_forgotten_until_somebody_joins() -> None:
    agenda, one = Agenda(), group(10)
    agenda.watch(one, 100)
    one.remove(one.streams[0])
    assert agenda.silent(110) == []
    assert agenda.next() == math.inf
    one.add(DetachedStream(2, one, 0.0, 0))
    agenda.watch(one, 120)
    agenda.watch(one, 125)
    assert agenda.next() == 130
    assert agenda.silent(130) == [one]


def test_members_end_in_time_and_once() -> None:
    agenda, one = Agenda(), group(10)
    first, second, third = (DetachedStream(number, one, 0.0, 0) for number in (1, 2, 3))
    agenda.end_at(first, 50.01)
    agenda.end_at(second, 50.02)
    agenda.end_at(third, 40.0)
    assert agenda.over(39.9) == []
    assert agenda.over(40.0) == [third]
    agenda.forget(second)
    agenda.forget(third)
    assert 50.01 <= agenda.next() <= 50.11
    assert agenda.over(50.01) == []
    assert agenda.over(50.11) == [first]
    assert agenda.over(1000.0) == []
    assert agenda.next() == math.inf


def test_those_that_have_left_take_no_room() -> None:
    agenda, one = Agenda(), group(10)
    for number in range(1000):
        member = DetachedStream(number, one, 0.0, 0)
        agenda.end_at(member, 50.0 + number)
        agenda.forget(member)
    assert agenda.next() == math.inf
    assert not agenda._ends
    assert not agenda._moments
