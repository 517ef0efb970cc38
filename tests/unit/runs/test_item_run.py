"""How the items of a run are advanced, and who else may emit some."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest
from flask import Flask, abort, has_app_context
from werkzeug.exceptions import NotFound

from sseflask.errors import EventError, Failure
from sseflask.event import Event
from sseflask.runs.item_run import ItemRun, RunHandle
from sseflask.runs.items import ItemOutcome
from sseflask.runs.outcome import NotedFrames, Outcome
from sseflask.runs.writer import Terms, Writer
from sseflask.store.run_api import FRAME_BYTES, Run, RunAppend

APP = Flask("items")


class Place:
    """A store that keeps what one writer appends."""

    def __init__(self, most: float = 1e9) -> None:
        self.appends: list[RunAppend] = []
        store: Any = self
        self.writer = Writer(Run(1, "r", "items", 0), store, Terms(bytes=most))

    def wait_for_room(self, run: int) -> None:
        assert run == 1

    def append(self, append: RunAppend) -> None:
        self.appends.append(append)

    @property
    def frames(self) -> list[bytes]:
        return [frame for append in self.appends for frame in append.frames]

    def advance(self, items: Any) -> list[list[bytes] | NotedFrames | Outcome]:
        return list(ItemRun(items, APP, APP.app_context).generate(self.writer))


def run_of(items: Any) -> list[list[bytes] | NotedFrames | Outcome]:
    return Place().advance(items)


def finished(result: str | None) -> ItemOutcome:
    return ItemOutcome("finished", result=result)


def generator(*items: Any, result: Any = None) -> Generator[Any, None, Any]:
    yield from items
    return result


def test_the_items_and_the_result() -> None:
    assert run_of(generator("a", b"data: ", b"b\n\n", result=[1])) == [
        [b"data: a\n\n"],
        [],
        [b"data: b\n\n"],
        finished("[1]"),
    ]
    assert run_of(["a"]) == [[b"data: a\n\n"], finished("null")]


@pytest.mark.parametrize(
    ("function", "got"),
    [
        (lambda: generator("no argument"), "no argument"),
        (lambda run: generator(run.id), "r"),
        (lambda run, much=2: generator(f"{run.id} {much}"), "r 2"),
        (lambda much=2: generator(much), "2"),
        (lambda *arguments: generator(arguments), "[]"),
        (functools.partial(lambda n, run: generator(f"{n} {run.id}"), 5), "5 r"),
        (functools.partial(generator, "c"), "c"),
    ],
)
def test_the_handle_is_given_to_who_needs_an_argument(
    function: Callable[..., Any], got: str
) -> None:
    """What a default is for is the application's: ``lambda n=n: ...`` is how a loop binds."""
    assert run_of(function)[0] == [f"data: {got}\n\n".encode()]


def test_a_function_that_emits_returns_the_result() -> None:
    place = Place()

    def work(run: RunHandle) -> dict[str, int]:
        run.emit("a")
        run.emit(b"data: b\n\ndata: c\n\n")
        assert not run.ended
        return {"n": 1}

    assert place.advance(work) == [finished('{"n":1}')]
    assert place.frames == [b"data: a\n\n", b"data: b\n\n", b"data: c\n\n"]


def test_a_function_may_give_the_one_that_emits() -> None:
    """As a `resume` function does that knows no handle."""
    place = Place()

    def work(run: RunHandle) -> Iterator[str]:
        run.emit("a")
        yield "b"

    assert place.advance(lambda: work) == [[b"data: b\n\n"], finished("null")]
    assert place.frames == [b"data: a\n\n"]


def test_a_list_that_a_function_returns_is_its_result() -> None:
    assert run_of(lambda: ["a"]) == [finished('["a"]')]


async def coroutine() -> None: ...


async def asynchronous() -> Any:
    yield 1


@pytest.mark.parametrize("items", [coroutine, asynchronous, asynchronous(), "text", b"x", {}, 5])
def test_what_can_not_be_a_run(items: Any) -> None:
    with pytest.raises(TypeError):
        ItemRun(items, APP, APP.app_context)


@pytest.mark.parametrize("made", [coroutine, asynchronous])
def test_a_function_that_gives_something_asynchronous_fails(made: Callable[[], Any]) -> None:
    with pytest.raises(Failure) as caught:
        run_of(lambda: made())
    assert caught.value.code == "internal_error"


@pytest.mark.parametrize(
    "whole", [b"data: x", b"data: a\n\ndata: b", b"data: a\n", b": c\n", bytearray(b"data: a\n")]
)
def test_what_is_emitted_is_whole(whole: bytes) -> None:
    """The rest of it would be lost: each call has a decoder of its own."""
    place = Place()
    with pytest.raises(EventError, match="whole events"):
        RunHandle(place.writer, APP).emit(whole)
    assert place.appends == []


def test_an_item_without_a_frame_is_no_append() -> None:
    place = Place()
    for nothing in (Event(id=5), b"", b"\n\n", b": c\n\n"):
        RunHandle(place.writer, APP).emit(nothing)
    assert place.appends == []


@pytest.mark.parametrize("ends", ["cancelled", "too large"])
def test_nothing_is_emitted_after_the_end(ends: str) -> None:
    place = Place(FRAME_BYTES + 9)
    handle = RunHandle(place.writer, APP)
    handle.emit("a")
    if ends == "cancelled":
        place.writer.cancel()
    else:
        with pytest.raises(Failure) as caught:
            handle.emit("b")
        assert caught.value.code == "run_too_large"
    assert handle.ended
    for item in ("c", Event(id=5)):
        with pytest.raises(RuntimeError, match="has ended"):
            handle.emit(item)
    assert place.frames == [b"data: a\n\n"]


class Reported:
    """An application that notes what its teardown functions are told."""

    def __init__(self) -> None:
        self.app = Flask("reported")
        self.told: list[str] = []

        @self.app.teardown_request
        def torn_down(error: BaseException | None) -> None:
            self.told.append(type(error).__name__)

    def advance(self, items: Any) -> list[Any]:
        run = ItemRun(items, self.app, self.app.test_request_context)
        return list(run.generate(Place().writer))


@pytest.mark.parametrize(
    ("error", "status", "code", "logged"),
    [
        (Failure("mine", status=418, code="mine"), 418, "mine", False),
        (NotFound(), 404, None, False),
        (KeyError("secret"), 500, "internal_error", True),
        (SystemExit(), 500, "internal_error", True),
        (KeyboardInterrupt(), 500, "internal_error", True),
    ],
)
def test_errors_are_reported_once(
    error: BaseException,
    status: int,
    code: str | None,
    logged: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    reported = Reported()

    def failing() -> Iterator[str]:
        yield "a"
        raise error

    with caplog.at_level(logging.ERROR), pytest.raises(Failure) as caught:
        reported.advance(failing)
    assert (caught.value.status, caught.value.code) == (status, code)
    assert len([each for each in caplog.records if each.exc_info]) == logged
    assert len(reported.told) == 1
    assert "secret" not in str(caught.value.body())


def test_an_abort_is_a_failure() -> None:
    with pytest.raises(Failure) as caught:
        run_of(lambda: abort(403, "not yours"))
    assert caught.value.status == 403


@pytest.mark.parametrize("how", ["closed", "raises"])
def test_the_iterator_is_closed_in_its_contexts(how: str) -> None:
    marks: list[Any] = []

    def items() -> Iterator[Any]:
        try:
            yield "a"
            yield object()  # no JSON
        finally:
            marks.append(has_app_context())

    place = Place()
    generated = ItemRun(items, APP, APP.app_context).generate(place.writer)
    next(generated)
    if how == "closed":
        place.writer.cancel()
        generated.close()
    else:
        with pytest.raises(Failure):
            next(generated)
    assert marks == [True]


def test_an_error_of_teardown_fails_the_run() -> None:
    @contextlib.contextmanager
    def context() -> Iterator[None]:
        yield
        raise KeyError("teardown")

    generated = ItemRun(["a"], APP, context).generate(Place().writer)
    assert next(generated) == [b"data: a\n\n"]
    with pytest.raises(Failure) as caught:
        next(generated)
    assert caught.value.code == "internal_error"


def test_what_does_not_become_a_run_is_closed() -> None:
    class Held(list[str]):
        closed = 0

        def close(self) -> None:
            self.closed += 1

    held = Held()
    ItemRun(held, APP, APP.app_context).close()
    assert held.closed == 1
