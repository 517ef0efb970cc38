"""How another process goes on with a run whose writer has died or left.

The run is stored with the name of a function of the application, which every process can import.
The name is signed with the application's secret key, if it has one: who can write to the store can
not have any function called.
"""

from __future__ import annotations

import functools
import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from flask import Flask
from itsdangerous import BadSignature, Signer, want_bytes

from sseflask.runs.item_run import ItemRun
from sseflask.runs.items import ITEM_FORMAT
from sseflask.runs.process import Generate, Read
from sseflask.runs.run_result import RunEvent, events_of
from sseflask.runs.writer import Terms
from sseflask.store.run_api import Run

__all__ = ["Resume", "Successor", "go_on", "last_event"]

Resume = Callable[[str, "RunEvent | None"], Any]
"""Takes a run's id and its last event, and gives what goes on with it."""

_SALT = "sseflask.successor"


@dataclass(frozen=True)
class Successor:
    """What a run is stored with, so that another process can go on with it.

    Args:
        function: goes on.
        terms: as long as the run's writer.
    """

    function: Resume
    terms: Terms

    def encode(self, secret: str | bytes | None) -> bytes:
        """The text for the store.

        Raises:
            TypeError: no other process could find the function by its name.
        """
        stored = {"function": _name_of(self.function), "terms": asdict(self.terms)}
        return _signer(secret).sign(json.dumps(stored).encode())

    @classmethod
    def decode(cls, stored: bytes, secrets: Sequence[str | bytes | None]) -> Successor:
        """The same again. Blocks if the function's module has to be imported.

        Raises:
            LookupError: it was not signed with one of these keys, or the function is gone.
        """
        try:
            found = json.loads(_signer(*secrets).unsign(stored))
        except BadSignature as error:
            raise LookupError("its successor was not signed with this SECRET_KEY") from error
        try:
            function = _function_of(found["function"])
        except (ImportError, AttributeError) as error:
            raise LookupError(f"there is no function {found['function']} any more") from error
        return cls(function, Terms(**found["terms"]))


def go_on(app: Flask, run: Run, successor: bytes, read: Read) -> tuple[Terms, Generate]:
    """How this process goes on with a run that another one has begun, see `Heir`.

    Raises:
        LookupError: the application has no such function any more, or has another secret key.
    """
    # Keys of before count from Flask 3.1 on.
    former = app.config.get("SECRET_KEY_FALLBACKS") or ()
    found = Successor.decode(successor, [app.secret_key, *former])
    last = last_event(run, read)

    def items() -> Any:
        return found.function(run.id, last)

    return found.terms, ItemRun(items, app, app.app_context).generate


def _signer(*secrets: str | bytes | None) -> Signer:
    return Signer([want_bytes(secret or "") for secret in secrets], salt=_SALT)


def _name_of(function: Resume) -> str:
    module = getattr(function, "__module__", None) or ""
    name = f"{module}:{getattr(function, '__qualname__', '')}"
    try:
        found = _function_of(name)
    except (ImportError, AttributeError, ValueError):
        found = None
    if found is not function:
        raise TypeError(
            f"resume must be a function at the top level of a module, which another worker can "
            f"import by its name, not {function!r:.80}"
        )
    return name


def _function_of(name: str) -> Any:
    module, _, path = name.partition(":")
    return functools.reduce(getattr, path.split("."), importlib.import_module(module))


def last_event(run: Run, read: Read) -> RunEvent | None:
    """The last event of a run of items, if it has one. Blocks."""
    for number in range(run.last, 0, -1):
        # Usually the last frame; others are comments.
        events = events_of(run, ITEM_FORMAT.view(run.id, run.label), read(number - 1, 1))
        if events:
            return events[-1]
    return None
