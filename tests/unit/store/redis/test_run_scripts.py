"""What the scripts do on a server: repetitions, leases, inboxes, and what Redis may throw away."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest
from redis import Redis

from sseflask.store.api import StoreError
from sseflask.store.redis.run_scripts import UnknownProcess, ended_run, numbered_frames
from sseflask.store.run_api import FRAME_BYTES, Ending, Run, RunAppend, StoreFull, TooMany, size_of
from tests import redis_server
from tests.contract.run_stores import DAY, ENDINGS, FINISHED, STOPPED, append_of, fresh, numbered
from tests.unit.store.redis.run_process import Process, key, keys, opened

INTERRUPTED = ENDINGS.interrupted


@pytest.fixture(params=redis_server.programs())
def server(request: pytest.FixtureRequest) -> redis_server.RedisServerProcess:
    return redis_server.shared(request.param)


@pytest.fixture
def one(url: str) -> Iterator[Process]:
    with opened(url) as one:
        yield one


@pytest.fixture
def other(url: str) -> Iterator[Process]:
    with opened(url) as other:
        yield other


def take_for_dead(client: Redis, url: str, process: Process) -> None:
    """Have a process look as if it had given no sign of life for a long time, alone."""
    client.zadd(key(url, "processes"), {process.token: 1})
    client.hset(key(url), "grace", 1)


# -- what is repeated ------------------------------------------------------------------------------


def test_a_claim_whose_answer_was_lost_is_made_once(one: Process) -> None:
    claim = fresh("k", b"content", most=1)
    run = one.begin(claim)
    assert one.begin(claim) == run
    assert one.claim(fresh(most=1)) == TooMany(1)


def test_an_append_whose_answer_was_lost_is_stored_once(
    one: Process, other: Process, client: Redis, url: str
) -> None:
    run = one.begin()
    other.scripts.attach(other.link, run.key)
    for _ in range(3):
        assert one.put(run, 1, 3)
    used = one.scripts.used
    assert one.put(run, 1, 5), "more has come meanwhile"
    assert one.scripts.used - used == size_of([b"frame 4", b"frame 5"])
    for _ in range(2):
        refused, (ended,) = one.append(append_of(run, 4, 4, FINISHED))
        assert not refused
        assert (ended.last, ended.ended, ended.notes) == (7, 8, b"notes 7")
    assert not one.put(run, 9, 1, FINISHED), "another end than this one"
    assert one.frames(run) == numbered(1, 7)
    entries = [entry for entry in other.entries() if entry[0] == b"f"]
    assert [frame for entry in entries for frame in numbered_frames(entry)] == numbered(1, 7)
    assert client.hget(key(url, "run", run.id), "size") == b"%d" % size_of(
        [frame for _, frame in numbered(1, 7)]
    )


def test_a_repetition_is_stored_although_its_run_was_ended_since(
    one: Process, other: Process
) -> None:
    run = one.begin()
    assert one.put(run, 1, 3)
    ended = other.end(run, STOPPED)
    assert one.put(run, 1, 3)
    assert one.put(run, 3, 1)
    assert not one.put(run, 1, 4)
    assert not one.put(run, 4, 0, FINISHED)
    assert not one.put(run, 3, 1, FINISHED), "another end than this one"
    assert one.now(run) == ended


def test_an_end_says_each_time_how_the_run_has_ended(one: Process, other: Process) -> None:
    run = one.begin()
    found = one.scripts.end(one.link, run.key, STOPPED)
    assert found is not None
    assert found.here
    for process, ending in ((one, FINISHED), (other, STOPPED)):
        again = process.scripts.end(process.link, run.key, ending)
        assert again is not None
        assert (again.run, again.here) == (found.run, False)


def test_a_run_that_lacks_frames_takes_no_more(one: Process, client: Redis, url: str) -> None:
    """As when the server was replaced by one that had not got the last writes."""
    run = one.begin()
    assert one.put(run, 1, 5)
    client.hset(key(url, "run", run.id), "last", 3)
    assert not one.put(run, 6, 1)
    assert one.frames(run) == numbered(1, 3)
    ended = one.end(run, INTERRUPTED)
    assert ended is not None
    assert ended.ended == 4


def test_a_claim_that_comes_after_it_was_withdrawn_begins_nothing(
    one: Process, client: Redis, url: str
) -> None:
    claim = fresh("k")
    withdrawn = one.scripts.end(one.link, claim.id, INTERRUPTED, withdrawn=True)
    assert withdrawn is None
    with pytest.raises(StoreError, match="withdrawn"):
        one.claim(claim)
    assert one.scripts.find(one.link, claim.id) is None
    assert one.scripts.end(one.link, claim.id, STOPPED) is None
    assert one.claim(fresh("k", most=1)) != TooMany(1)
    assert 0 < client.ttl(key(url, "run", claim.id)) <= 60


# -- frames ----------------------------------------------------------------------------------------


def test_thousands_of_frames_are_stored_at_once_and_read_in_pages(one: Process) -> None:
    run = one.begin()
    assert one.put(run, 1, 9000)
    assert one.frames(run) == numbered(1, 9000)
    assert one.scripts.frames(one.link, run.key, 8995, 100) == numbered(8996, 5)
    assert one.scripts.frames(one.link, run.key, 9000, 100) == []
    large = [b"x" * 100_000] * 10
    one.append(RunAppend(run.key, 9001, large, [b""] * 10, 0))
    assert len(one.scripts.frames(one.link, run.key, 9000, 10)) == 3


def test_a_group_stores_what_it_can_of_each_run(one: Process, other: Process) -> None:
    run, ended, foreign = one.begin(), one.begin(), other.begin()
    one.end(ended, STOPPED)
    appends = [
        append_of(foreign, 1, 1),
        append_of(run, 1, 2),
        append_of(ended, 1, 2),
        append_of(run._replace(key="f" * 32), 1, 2),
        append_of(run, 3, 0, FINISHED),
    ]
    refused, ends = one.append(*appends)
    assert refused == [appends[0], appends[2], appends[3]]
    assert [(run.key, run.ended) for run in ends] == [(run.key, 3)]
    assert one.frames(foreign) == one.frames(ended) == []


# -- inboxes ---------------------------------------------------------------------------------------


def test_what_is_watched_is_put_into_the_inbox(one: Process, other: Process) -> None:
    run, unseen = one.begin(), one.begin()
    assert one.put(run, 1, 2)
    assert other.scripts.attach(other.link, run.key) == run._replace(last=2)
    assert other.scripts.attach(other.link, run.key) == run._replace(last=2)
    one.append(append_of(run, 3, 2), append_of(unseen, 1, 2))
    large = [b"x" * 3000, b"y" * 3000]
    one.append(RunAppend(run.key, 5, large, [b"", b"notes"], 0))
    one.append(append_of(unseen, 3, 0, FINISHED), append_of(run, 7, 0, FINISHED))
    hello, frames, more, end = other.entries()
    assert hello[0] == b"h"
    assert (frames[:2], list(numbered_frames(frames))) == (
        [b"f", run.id.encode()],
        numbered(3, 2),
    )
    assert more == [b"n", run.id.encode(), b"last", b"6"]
    assert end[0] == b"e"
    ended = run._replace(last=6, ended=7, outcome=b"finished", notes=b"notes")
    assert ended_run(end) == (ended, f"{one.token}a".encode())
    assert [entry[0] for entry in one.entries()] == [b"h", b"w"], "its own end it has got"


def test_a_writer_hears_of_ends_by_others_and_of_who_is_attached(
    one: Process, other: Process
) -> None:
    run = one.begin()
    other.scripts.attach(other.link, run.key)
    other.scripts.detach(other.link, run.key)
    other.scripts.detach(other.link, run.key)
    assert one.put(run, 1, 1)
    ended = other.end(run, STOPPED)
    entries = one.entries()
    assert [entry[0] for entry in entries] == [b"h", b"w", b"w", b"e"]
    assert ended_run(entries[-1])[0] == ended
    assert [entry[0] for entry in other.entries()] == [b"h", b"e"], "if the answer is lost"


def test_an_inbox_is_bounded(one: Process, other: Process, client: Redis, url: str) -> None:
    run = one.begin()
    other.scripts.attach(other.link, run.key)
    appends = [append_of(run, number, 1) for number in range(1, 5001)]
    for at in range(0, 5000, 500):
        one.append(*appends[at : at + 500])
    inbox = key(url, "inbox", other.token)
    assert client.xlen(inbox) < 4000
    entries = other.entries()
    assert entries[0][0] == b"o"
    assert entries[1][0] == b"f"
    other.scripts.empty_inbox(other.link)
    other.tick()
    left = client.xlen(inbox)
    while other.entries():
        pass
    other.tick()
    assert client.xlen(inbox) == 1 < left


def test_a_process_without_an_inbox_is_sent_nothing(
    one: Process, other: Process, client: Redis, url: str
) -> None:
    run = one.begin()
    other.scripts.attach(other.link, run.key)
    inbox = key(url, "inbox", other.token)
    client.delete(inbox)
    assert one.put(run, 1, 1)
    assert not client.exists(inbox)
    assert client.hget(key(url, "run", run.id), "watchers") == b""
    with pytest.raises(UnknownProcess):
        other.scripts.attach(other.link, run.key)
    assert other.tick().entered
    assert other.scripts.attach(other.link, run.key) == run._replace(last=1)
    assert not other.tick().entered


def test_processes_that_are_attached(one: Process, other: Process, client: Redis, url: str) -> None:
    run, unseen = one.begin(), one.begin()
    other.scripts.attach(other.link, run.key)
    one.scripts.attach(one.link, unseen.key)
    runs = [run.key, unseen.key, "f" * 32]
    assert one.scripts.attached_elsewhere(one.link, runs) == {run.key}
    assert other.scripts.attached_elsewhere(other.link, runs) == set(), "that is this process"
    take_for_dead(client, url, other)
    assert one.scripts.attached_elsewhere(one.link, runs) == set()


# -- leases ----------------------------------------------------------------------------------------


def test_a_process_is_known_from_its_first_use_on(url: str) -> None:
    with opened(url, enter=False) as process:
        assert not process.tick(in_use=False).entered
        with pytest.raises(UnknownProcess):
            process.claim(fresh())
        assert process.tick().entered
        assert not process.tick().entered
        process.begin()


def test_the_runs_of_a_dead_process_are_ended_once(one: Process, url: str, client: Redis) -> None:
    runs = [one.begin(fresh(f"k{number}", most=1000)) for number in range(130)]
    assert one.put(runs[0], 1, 2)
    ended: list[Run] = []
    lock = threading.Lock()
    take_for_dead(client, url, one)

    def end() -> None:
        with opened(url, enter=False) as process:
            while (tick := process.tick(in_use=False)).more or tick.ended:
                with lock:
                    ended.extend(tick.ended)

    threads = [threading.Thread(target=end) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(run.key for run in ended) == sorted(run.key for run in runs)
    assert {run.outcome for run in ended} == {b"interrupted"}
    (first,) = [run for run in ended if run.key == runs[0].key]
    assert (first.last, first.notes) == (2, b"notes 2")
    assert not one.put(runs[0], 3, 1)
    assert one.tick().entered
    assert one.begin(fresh("k5"))
    assert f":inbox:{one.token}" in keys(client, url)


def test_a_process_that_was_taken_for_dead_waits_until_its_runs_are_ended(
    one: Process, url: str, client: Redis
) -> None:
    client.sadd(key(url, "dead"), one.token)
    client.zrem(key(url, "processes"), one.token)
    assert not one.tick().entered
    assert one.tick().entered


def test_if_none_was_there_for_a_time_all_get_time_anew(
    one: Process, other: Process, client: Redis, url: str
) -> None:
    """The server was away, or all processes stood still: none is dead for that."""
    run = one.begin()
    take_for_dead(client, url, one)
    client.hset(key(url), "tick", 1)
    for _ in range(3):
        assert not other.tick(run.key).ended
    assert one.put(run, 1, 1)
    client.hset(key(url), "grace", 1)
    assert [each.key for each in other.tick().ended] == [run.key]


def test_a_clock_that_is_put_back_ends_nothing(
    one: Process, other: Process, client: Redis, url: str
) -> None:
    run = one.begin()
    ahead = 10.0**17
    client.hset(key(url), mapping={"tick": int(ahead), "grace": int(ahead)})
    client.zadd(key(url, "processes"), {one.token: ahead, other.token: ahead})
    assert not other.tick(run.key).ended
    assert client.zcount(key(url, "processes"), ahead, "+inf") == 0
    take_for_dead(client, url, one)
    assert [each.key for each in other.tick().ended] == [run.key]


def test_a_run_whose_writer_is_unknown_is_ended_by_a_look_or_by_its_repetition(
    one: Process, other: Process, client: Redis, url: str
) -> None:
    """Redis may have evicted the list of what a dead process wrote."""
    seen, repeated = one.begin(), one.begin(fresh("k"))
    client.delete(key(url, "running"))
    client.zrem(key(url, "processes"), one.token)
    client.hset(key(url), "grace", 1)
    found = other.tick(seen.key).found[seen.key]
    assert found is not None
    assert (found.run.outcome, found.here) == (b"interrupted", True)
    assert other.begin(fresh("k")).key != repeated.key
    again = other.now(repeated)
    assert again is not None
    assert again.outcome == b"interrupted"


def test_all_processes_are_forgotten(one: Process, other: Process, client: Redis, url: str) -> None:
    """Evicted: they enter again, and nothing is ended."""
    run = one.begin()
    client.hset(key(url), "grace", 1)
    client.delete(key(url, "processes"))
    tick = other.tick(run.key)
    assert (tick.entered, tick.ended) == (True, [])
    assert one.tick().entered
    assert one.put(run, 1, 1)


def test_leaving_ends_what_is_written_here(one: Process, other: Process) -> None:
    run, ended, foreign = one.begin(), one.begin(), other.begin()
    one.end(ended, FINISHED)
    found = one.scripts.leave(one.link, [run.key, ended.key, foreign.key, "f" * 32])
    assert [(run.key, run.outcome) for run in found.ended] == [(run.key, b"interrupted")]
    assert found.passed_on == []
    assert other.put(foreign, 1, 1)
    assert one.scripts.written(one.link) == set()
    assert other.scripts.written(other.link) == {foreign.key}


# -- what others go on with ------------------------------------------------------------------------


def test_only_who_inherits_takes_over_what_the_dead_wrote(
    one: Process, other: Process, client: Redis, url: str
) -> None:
    run, plain = one.begin(fresh("k", successor=b"go on")), one.begin()
    one.put(run, 1, 2)
    take_for_dead(client, url, one)
    tick = other.tick()
    assert [each.key for each in tick.ended] == [plain.key]
    assert (tick.more, tick.inherited) == (True, [])
    assert (other.tick().more, other.now(run)) == (False, run._replace(last=2))
    with opened(url, enter=False) as heir:
        tick = heir.tick(in_use=False, inherits=True)
        ((inherited, successor),) = tick.inherited
        assert inherited == run._replace(last=2, notes=b"notes 2", size=append_of(run, 1, 2).size)
        assert (tick.entered, tick.ended, tick.written) == (True, [], 1)
        assert successor == b"go on"
        assert not one.put(run, 3, 1)
        assert heir.put(run, 3, 1)
        take_for_dead(client, url, heir)
        (ended,) = other.tick(inherits=True).ended
        assert (ended.key, ended.last, ended.outcome) == (run.key, 3, b"interrupted")


def test_who_was_taken_for_dead_keeps_what_none_inherited(
    one: Process, client: Redis, url: str
) -> None:
    run, plain = one.begin(fresh(successor=b"go on")), one.begin()
    take_for_dead(client, url, one)
    client.sadd(key(url, "dead"), one.token)
    client.zrem(key(url, "processes"), one.token)
    tick = one.tick(inherits=True)
    assert [each.key for each in tick.ended] == [plain.key]
    assert (tick.more, tick.entered, tick.inherited) == (True, False, [])
    assert one.tick(inherits=True).inherited == []
    assert one.put(run, 1, 1, FINISHED)


def test_what_waits_expires_until_it_is_inherited(
    one: Process, other: Process, client: Redis, url: str
) -> None:
    run = one.begin(fresh("k", successor=b"go on"))
    assert one.scripts.leave(one.link, [run.key]) == ([], [run.key])
    assert one.scripts.leave(one.link, [run.key]) == ([], [])
    names = key(url, "run", run.id), key(url, "key", "k")
    assert all(86_400 < client.ttl(name) <= 86_460 for name in names)
    assert one.scripts.written(one.link) == set()
    assert other.claim(fresh("k")) == (run, True)
    assert [each for each, _ in other.tick(inherits=True).inherited] == [run]
    assert min(client.ttl(name) for name in names) > 8 * 86_400
    other.scripts.leave(other.link, [run.key])
    client.delete(*names)
    assert other.tick(inherits=True).inherited == []
    assert client.zcard(key(url, "running")) == 0


def test_what_waits_is_found_again_by_who_follows_it(
    one: Process, other: Process, client: Redis, url: str
) -> None:
    """Though Redis has thrown away what says so."""
    run = one.begin(fresh(successor=b"go on"))
    one.scripts.leave(one.link, [run.key])
    client.delete(key(url, "running"))
    other.tick(run.key)
    assert [each for each, _ in other.tick(inherits=True).inherited] == [run]


def test_an_old_writer_does_not_end_what_is_passed_on(one: Process, other: Process) -> None:
    run = one.begin(fresh(successor=b"go on"))
    one.scripts.leave(one.link, [run.key])
    for _ in range(2):
        found = one.scripts.end(one.link, run.key, STOPPED, unless_passed_on=True)
        assert found is not None
        assert found.run.ended is None
        other.tick(inherits=True)
    found = other.scripts.end(other.link, run.key, STOPPED, unless_passed_on=True)
    assert found is not None
    assert found.here


# -- what takes room -------------------------------------------------------------------------------


def test_what_has_ended_is_deleted_after_its_time(url: str, client: Redis) -> None:
    with opened(url, seconds=0.0) as process:
        for number in range(60):
            run = process.begin(fresh(f"k{number}"))
            process.put(run, 1, 1, FINISHED)
        going_on = process.begin(fresh("k"))
        deleted = 0
        while some := process.scripts.make_room(process.link).deleted:
            deleted += some
        assert deleted == 60
        assert keys(client, url) == [
            "",
            ":account:alice",
            f":inbox:{process.token}",
            ":key:k",
            ":processes",
            f":run:{going_on.id}",
            ":running",
        ]
        assert process.scripts.extent(process.link).bytes == 1024
        assert process.scripts.extent(process.link).oldest == 0.0


def test_what_is_kept_for_its_own_time_is_deleted_after_it(
    one: Process, client: Redis, url: str
) -> None:
    for keep in (0.0, 60.0, 100 * 86_400.0):
        run = one.begin(fresh(f"{keep}", keep=keep))
        one.put(run, 1, 1, FINISHED)
        assert keep <= client.ttl(key(url, "run", run.id)) <= keep + 60
        assert client.ttl(key(url, "kept")) > keep + 3600
    assert one.scripts.make_room(one.link).deleted == 0, "viewers read its last frames"
    for member, score in client.zscan_iter(key(url, "kept")):
        client.zadd(key(url, "kept"), {member: score - 60e6})
    while one.scripts.make_room(one.link).deleted:
        pass
    assert client.zcard(key(url, "kept")) == 1
    assert client.exists(key(url, "run", run.id), key(url, "key", f"{keep}")) == 2
    assert one.scripts.extent(one.link).bytes == 1024 + size_of([b"frame 1"])


def test_what_is_kept_for_its_own_time_makes_room_last(url: str) -> None:
    with opened(url, max_bytes=100_000) as process:
        large = [b"x" * 10_000]
        runs = [process.begin(fresh(keep=keep)) for keep in (DAY, None, DAY, None)]
        for run in runs:
            process.append(RunAppend(run.key, 1, large, [b""], size_of(large), FINISHED))
        filling = []
        while sum(process.now(run) is not None for run in runs) > 2:
            filling.append(process.begin())
            process.append(RunAppend(filling[-1].key, 1, large, [b""], size_of(large)))
            process.scripts.make_room(process.link)
        assert [process.now(run) is not None for run in runs] == [True, False, True, False]
        with pytest.raises(StoreFull):  # noqa: PT012  # as soon as it is full
            while True:
                filling.append(process.begin())
                process.append(RunAppend(filling[-1].key, 1, large, [b""], size_of(large)))
        assert not any(process.now(run) for run in runs)


def test_what_is_deleted_by_nobody_expires(
    one: Process, other: Process, client: Redis, url: str
) -> None:
    run = one.begin(fresh("k"))
    one.put(run, 1, 1)
    other.scripts.attach(other.link, run.key)
    other.tick()
    most = 8 * 86_400
    for each in keys(client, url):
        assert most < client.ttl(key(url) + each) or ":inbox:" in each, each
    assert client.ttl(key(url)) > client.ttl(key(url, "run", run.id)) + 80_000
    # It lasts longer, and its writer lives.
    for each in keys(client, url):
        client.expire(key(url) + each, 100)
    one.tick()
    for each in keys(client, url):
        assert most < client.ttl(key(url) + each) or ":inbox:" in each, each
    one.end(run, STOPPED)
    assert client.ttl(key(url, "run", run.id)) > 86_000
    assert client.ttl(key(url, "key", "k")) > 86_000
    assert client.ttl(key(url, "ended")) > client.ttl(key(url, "run", run.id)) + 3000


def test_the_earliest_ends_make_room(url: str) -> None:
    with opened(url, max_bytes=200_000) as process:
        runs = []
        for _ in range(30):
            runs.append(process.begin())
            frames = [b"x" * 20_000]
            process.append(RunAppend(runs[-1].key, 1, frames, [b""], size_of(frames), FINISHED))
            process.scripts.make_room(process.link)
        there = [process.now(run) is not None for run in runs]
        assert there == sorted(there), "the earliest are gone"
        assert 5 < there.count(True) < 10
        assert process.scripts.extent(process.link).bytes < 200_000


def test_runs_that_go_on_are_not_deleted(url: str) -> None:
    with opened(url, max_bytes=100_000) as process:
        runs = []
        with pytest.raises(StoreFull):  # noqa: PT012  # as soon as it is full
            for number in range(20):
                runs.append(process.begin())
                frames = [b"x" * (6000 + number)]
                process.append(RunAppend(runs[-1].key, 1, frames, [b""], size_of(frames)))
        assert process.scripts.make_room(process.link) == (0, None)
        process.append(RunAppend(runs[3].key, 2, [b"y" * 20_000], [b""], 30_000))
        assert process.scripts.make_room(process.link) == (0, runs[3].key)
        process.end(runs[3], ENDINGS.full)
        assert process.scripts.make_room(process.link) == (1, None)
        process.begin()


def test_what_was_evicted_takes_no_room(url: str, client: Redis) -> None:
    with opened(url, max_bytes=100_000) as process:
        run = process.begin()
        process.append(RunAppend(run.key, 1, [b"x" * 50_000], [b""], 50_048))
        client.hincrby(key(url), "bytes", 60_000)
        process.begin()
        assert process.scripts.extent(process.link).bytes == 50_048 + 2 * 1024
        process.append(RunAppend(run.key, 2, [b"x" * 40_000], [b""], 90_096))
        with pytest.raises(StoreFull):
            process.begin()


def test_accounts_are_not_blocked_by_runs_that_were_evicted(
    one: Process, client: Redis, url: str
) -> None:
    runs = [one.begin(fresh(most=3)) for _ in range(3)]
    assert one.claim(fresh(most=3)) == TooMany(3)
    client.delete(key(url, "run", runs[1].id))
    one.begin(fresh(most=3))
    assert one.claim(fresh(most=3)) == TooMany(3)


def test_what_was_evicted_is_not_there(one: Process, client: Redis, url: str) -> None:
    run = one.begin(fresh("k"))
    assert one.put(run, 1, 2)
    client.delete(key(url, "run", run.id))
    assert one.now(run) is None
    assert one.end(run, STOPPED) is None
    assert one.frames(run) == []
    assert not one.put(run, 3, 1), "never half a run"
    assert one.now(run) is None
    assert one.scripts.attach(one.link, run.key) is None
    assert one.tick(run.key).found == {run.key: None}
    assert one.begin(fresh("k")).key != run.key
    assert one.scripts.leave(one.link, [run.key]) == ([], [])
    assert run.key not in one.scripts.written(one.link)


def test_what_takes_room_is_estimated_well(one: Process, client: Redis, url: str) -> None:
    """Bytes of the server for a run and its frames, as the limit counts them."""
    run = one.begin(fresh("k" * 64, b"d" * 32))
    name = key(url, "run", run.id)
    begun = client.memory_usage(name)
    assert begun is not None
    assert begun < 1024
    frames = [b"x" * 300] * 1000
    one.append(RunAppend(run.key, 1, frames, [b""] * 1000, size_of(frames)))
    filled = client.memory_usage(name, samples=0)
    assert filled is not None
    assert (filled - begun) / 1000 - 300 == pytest.approx(FRAME_BYTES, abs=60)


# -- a server without memory -----------------------------------------------------------------------


@contextlib.contextmanager
def memory_full(client: Redis) -> Iterator[None]:
    """Give the server less memory than it uses."""
    client.config_set("maxmemory", client.info("memory")["used_memory"] // 2)
    try:
        yield
    finally:
        client.config_set("maxmemory", 0)


def test_without_memory_runs_end_and_processes_live(
    one: Process, other: Process, client: Redis, url: str
) -> None:
    run, own = one.begin(), other.begin()
    other.scripts.attach(other.link, run.key)
    assert one.put(run, 1, 1)
    with memory_full(client):
        for refused_call in (lambda: one.put(run, 2, 1), one.begin):
            with pytest.raises(StoreFull):
                refused_call()
        assert one.frames(run) == numbered(1, 1), "all or nothing"
        before = client.zscore(key(url, "processes"), one.token)
        assert not one.tick().entered
        after = client.zscore(key(url, "processes"), one.token)
        assert before is not None
        assert after is not None
        assert after > before
        ended = other.end(run, STOPPED)
        assert ended is not None
        assert ended.ended == 2
        assert [ended_run(entry)[0] for entry in one.entries() if entry[0] == b"e"] == [ended]
        refused, ends = other.append(append_of(own, 1, 0, Ending(b"done")))
        assert (refused, len(ends)) == ([], 1)
    assert one.put(one.begin(), 1, 1)


def test_an_inbox_that_nobody_finds_expires(one: Process, client: Redis, url: str) -> None:
    one.begin()
    one.tick()
    assert 3_000_000 < client.pttl(key(url, f"inbox:{one.token}")) <= 3_600_000
