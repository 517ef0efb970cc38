"""Runs of an application's generators: how they are advanced, and who else may write them."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from flask import Flask, has_request_context, request

from sseflask.error_reports import report
from sseflask.errors import EventError, Failure
from sseflask.flask_context import lasting_context
from sseflask.items import check_iterable
from sseflask.runs.items import ITEMS, ItemEncoder, ItemOutcome, result_json
from sseflask.runs.outcome import Generated, Outcome
from sseflask.runs.source import RunSource
from sseflask.runs.writer import Writer
from sseflask.transport.stream import as_exception
from sseflask.wire import ends_event

__all__ = ["ItemRun", "RunHandle"]


class RunHandle:
    """A run, for the function that writes it and for the greenlets and threads that it starts.

    Attributes:
        id: the run's id.
    """

    def __init__(self, writer: Writer, app: Flask | None) -> None:
        self.id = writer.run.id
        self._writer = writer
        self._app = app

    @property
    def ended(self) -> bool:
        """Whether nothing more can be emitted: it has ended, or was stopped or cancelled."""
        return self._writer.ended

    def emit(self, item: Any) -> None:
        """Store an item, and give it to all viewers, after all items before it.

        Any greenlet or thread; blocks the calling one while much waits to be stored.

        Args:
            item: what the generator may yield; bytes have to be whole events.

        Raises:
            EventError: it can't be sent, or has the type of a run's last event.
            Failure: the run has become too large, and has been ended.
            RuntimeError: the run has ended, or was stopped or cancelled.
        """
        if isinstance(item, (bytes, bytearray, memoryview)) and not ends_event(bytes(item[-4:])):
            raise EventError("bytes must be whole events: each ends with a blank line")
        frames = ItemEncoder(self._app).frames(item)
        if not self._writer.write(frames):
            raise RuntimeError(
                f"the run {self.id} has ended, or was stopped or cancelled: nothing more can be "
                "emitted; end this work"
            )


@dataclass
class ItemRun(RunSource):
    """What a run of items is made of.

    Args:
        items: an iterable of items; or a function that is a generator, returns an iterator, or
            emits them and returns the run's result. It may take the `RunHandle`.
        app: the application.
        context: gives the greenlet or thread of the run its contexts.
    """

    label = ITEMS

    items: Iterable[Any] | Callable[..., Any]
    app: Flask | None = None
    context: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext

    def __post_init__(self) -> None:
        if not callable(self.items) or isinstance(self.items, Iterable):
            check_iterable(self.items)
        elif inspect.iscoroutinefunction(self.items) or inspect.isasyncgenfunction(self.items):
            raise TypeError(
                f"{getattr(self.items, '__name__', 'the function')} is asynchronous; sseflask runs "
                "synchronous generators and functions: write a plain one, gevent makes its "
                "blocking calls cooperative"
            )

    def within(self, app: Flask) -> None:
        self.app, self.context = app, lasting_context(app)

    def close(self) -> None:
        _close(self.items)

    def generate(self, writer: Writer) -> Generated:
        self.used = True
        path = request.path if has_request_context() else f"run {writer.run.id}"
        return self._generated(writer, path)

    def _generated(self, writer: Writer, path: str) -> Generated:
        failure: Failure | None = None
        try:
            with self.context():
                try:
                    value = yield from self._frames(writer)
                except BaseException as error:
                    if _ended_by_us(error, writer):
                        raise
                    failure = report(self.app, path, as_exception(error))
                    raise  # for teardown functions
                outcome = self._outcome(value)
        except BaseException as error:
            if _ended_by_us(error, writer):
                raise
            raise failure or report(self.app, path, as_exception(error)) from error
        yield outcome

    def _frames(self, writer: Writer) -> Generator[list[bytes], None, Any]:
        items: Any = self.items
        if not isinstance(items, Iterable):
            handle = RunHandle(writer, self.app)
            items = _call(items, handle)
            if callable(items) and not isinstance(items, Iterator):
                items = _call(items, handle)  # what a `resume` function may give as well
            if not isinstance(items, Iterator):
                _check_result(items)
                return items
        return (yield from encoded(items, ItemEncoder(self.app)))

    def _outcome(self, value: Any) -> Outcome:
        return ItemOutcome("finished", result=result_json(value, self.app))


class Encoder(Protocol):
    """Makes frames of items."""

    def frames(self, item: Any) -> list[bytes]: ...


def encoded(items: Iterable[Any], encoder: Encoder) -> Generator[list[bytes], None, Any]:
    """Give the frames of each item, and return what their generator returns; it is closed."""
    iterator = iter(items)
    try:
        while True:
            try:
                item = next(iterator)
            except StopIteration as stop:
                return stop.value
            yield encoder.frames(item)
    finally:
        _close(iterator)


def _ended_by_us(error: BaseException, writer: Writer) -> bool:
    """Whether this closes a generator whose run has ended: no error of the application's."""
    # Others of this kind are: a `gevent.Timeout`, or asyncio's CancelledError.
    return writer.ended and not isinstance(error, (Exception, KeyboardInterrupt, SystemExit))


def _call(function: Callable[..., Any], handle: RunHandle) -> Any:
    """Call a function, with the handle if it can't be called without.

    What an argument with a default is for, such as that of ``lambda n=n: items(n)``, nobody knows.
    """
    try:
        inspect.signature(function).bind()
    except TypeError:
        return function(handle)
    except ValueError:  # a function without a signature, written in C
        return function()
    return function()


def _close(items: object) -> None:
    close = getattr(items, "close", None)
    if close is not None:
        close()


def _check_result(value: object) -> None:
    """Refuse what a function can't have meant as its result."""
    if hasattr(value, "__aiter__") or inspect.isawaitable(value):
        check_iterable(value)
