"""What a process counts, and how that is added up."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

from sseflask.counters.counts import Counts, Histogram, current_gauges, provide
from sseflask.counters.sharing import Sharing
from sseflask.counters.stats import usage_of
from tests.unit.counters.test_table import Worker


def test_all_numbers_are_given_and_taken() -> None:
    counts = Counts()
    numbers = list(range(1, len(counts.numbers()) + 1))
    counts.set(numbers)
    assert counts.numbers() == numbers
    assert counts.streams["run"].bytes > counts.streams["channel"].bytes > 0
    assert counts.first_token.total == numbers[-1]


#: What a child that is forked counts, and what its parent does.
FORKING = """
import os
from sseflask.counters.counts import COUNTS

COUNTS.published = 7
child = os.fork()
if not child:
    os._exit(COUNTS.published)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status), COUNTS.published)
"""


def test_a_child_counts_for_itself() -> None:
    """Otherwise what a master has counted would be added up once for each worker."""
    done = subprocess.run(
        [sys.executable, "-c", FORKING], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "0 7\n", done.stderr


def test_a_histogram_counts_by_upper_bounds() -> None:
    histogram = Histogram((0.1, 1.0))
    for seconds in (0.0, 0.1, 0.100001, 5.0):
        histogram.add(seconds)
    histogram.add(0.5, times=10)
    assert histogram.counts == [2, 11, 1]
    assert histogram.total == 10_200_001


def test_gauges_are_asked_for_and_added_up() -> None:
    numbers = itertools.count(1)
    withdraw = [provide("behind", lambda: next(numbers)) for _ in range(2)]
    before = current_gauges().behind
    assert before == 1 + 2
    withdraw[0]()
    withdraw[0]()
    assert current_gauges().behind == 3
    withdraw[1]()
    assert current_gauges().behind == 0


def test_what_this_process_takes() -> None:
    used = usage_of(os.getpid())
    assert used.cpu > 0.01
    assert 10 << 20 < used.memory < 10 << 30
    assert usage_of(2**22 + 1) == (0.0, 0), "there is none with such a number"


def test_a_process_without_a_slot_has_its_own_figures() -> None:
    sharing = Sharing()
    (slot,) = sharing.read()
    assert (slot.pid, sharing.slot) == (os.getpid(), None)
    assert sharing.claim(1)


def test_the_table_is_handed_on_to_the_next_master() -> None:
    first, worker = Sharing(), Worker()
    first.take(worker)
    environment: dict[str, str] = {}
    first.pass_on(environment)
    (told,) = environment.values()
    assert first._table is not None
    assert told.startswith(f"{first._table.descriptor},")
