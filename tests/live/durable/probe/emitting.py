"""Functions that are given their run, so that several may write it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import gevent

from sseflask import Event
from sseflask.loop.native import original
from tests.live.durable.probe.gates import wait_until_allowed
from tests.live.durable.probe.generators import Asked, Made, ended, number, started
from tests.live.kit.notes import mark

Emitting = Callable[[Any], Made]


def producers(asked: Asked) -> Emitting:
    """Several threads (under gevent greenlets) and the generator write at the same time."""
    tag, threads = asked["tag"], int(number(asked, "threads", 4))
    each = int(number(asked, "each", 25))

    def work(run: Any) -> Made:
        started(asked)

        def produce(name: str) -> None:
            for n in range(each):
                run.emit(f"{name}:{n}")

        made = [threading.Thread(target=produce, args=(f"p{n}",)) for n in range(threads)]
        try:
            for thread in made:
                thread.start()
            for n in range(each):
                yield f"own:{n}"
            for thread in made:
                thread.join()
            yield "joined"
        finally:
            ended(asked)
        return tag

    return work


def native_producers(asked: Asked) -> Emitting:
    """Native threads write, of which gevent knows nothing or which its pool has."""
    each = int(number(asked, "each", 300))

    def work(run: Any) -> Made:
        done: list[str] = []

        def produce(name: str) -> None:
            for n in range(each):
                run.emit(f"{name}:{n}:{'x' * int(number(asked, 'size', 10))}")
            done.append(name)

        names = [f"p{n}" for n in range(4)]
        for name in names[:2]:
            original("_thread", "start_new_thread")(produce, (name,))
        pool = gevent.get_hub().threadpool
        for name in names[2:]:
            pool.spawn(produce, name)
        while len(done) < len(names):
            time.sleep(0.01)
            yield "own"
        return names

    return work


def ordered(_asked: Asked) -> Emitting:
    """What is emitted before a `yield` comes before it."""

    def work(run: Any) -> Made:
        for n in range(0, 30, 3):
            run.emit(str(n))
            run.emit(Event(str(n + 1), event="emitted"))
            yield str(n + 2)

    return work


def silent_generator(asked: Asked) -> Emitting:
    """All comes by `emit`, while the generator waits."""

    def work(run: Any) -> Made:
        started(asked)

        def produce() -> None:
            for n in range(3):
                wait_until_allowed(asked["tag"], n + 1)
                run.emit(f"emitted {n}")

        thread = threading.Thread(target=produce)
        thread.start()
        thread.join()
        yield "last"
        ended(asked)

    return work


def late(asked: Asked) -> Emitting:
    """Somebody emits after the end."""
    tag = asked["tag"]

    def work(run: Any) -> Made:
        started(asked)

        def produce() -> None:
            wait_until_allowed(tag, 1)
            try:
                run.emit("late")
            except Exception as error:
                mark(tag, f"raised {type(error).__name__}: {error}")
            else:
                mark(tag, "emitted in silence")

        threading.Thread(target=produce, daemon=True).start()
        yield "only"
        if "blocking" in asked:
            mark(tag, "blocked")
            threading.Event().wait()

    return work


def unencodable_emit(asked: Asked) -> Emitting:
    """What can't be sent is told to the one who emits it; the run goes on."""

    def work(run: Any) -> Made:
        try:
            run.emit(object())
        except Exception as error:
            mark(asked["tag"], f"raised {type(error).__name__}")
        yield "after"

    return work


def faster_than_the_store(asked: Asked) -> Emitting:
    """Emits much at once: `emit` may wait, but loses nothing."""

    def work(run: Any) -> Made:
        for n in range(int(number(asked, "count", 2000))):
            run.emit(f"{n}:{'x' * int(number(asked, 'size', 100))}")
        yield f"by {os.getpid()}"

    return work


EMITTING: Mapping[str, Callable[[Asked], Emitting]] = {
    each.__name__: each
    for each in (
        *(
            producers,
            native_producers,
            ordered,
            silent_generator,
            late,
            unencodable_emit,
            faster_than_the_store,
        ),
    )
}
