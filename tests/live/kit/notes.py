"""What the probe's views share: notes for the test, gates that the test opens, the query.

What happens inside is noted in files, one for each ``tag``, so that it can be read while the
process is busy and after it has ended.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, request
from flask.typing import ResponseReturnValue

#: How many pieces the generators of a tag have made.
counts: dict[str, int] = {}

_MARKS = Path(os.environ["PROBE_MARKS"])
_gates: dict[str, threading.Condition] = {}
_woken: dict[str, int] = {}


class ProbeError(Exception):
    """Raised on purpose."""


def tag() -> str:
    return request.args.get("tag", "untagged")


def number(name: str, default: float) -> float:
    return float(request.args.get(name, default))


def options() -> dict[str, Any]:
    """The response's options, from the query."""
    return {
        name: number(name, 0)
        for name in ("heartbeat", "first_byte", "lifetime")
        if name in request.args
    }


def mark(name: str, text: str) -> None:
    """Note something; one unbuffered append, so that it survives whatever comes next."""
    with (_MARKS / name).open("ab", buffering=0) as file:
        file.write(f"{text}\n".encode())


def page(file: str) -> Blueprint:
    """A page for a browser; what it posts to `/note` is noted under its tag."""
    blueprint = Blueprint("page_of_the_test", __name__)

    @blueprint.get("/page")
    def show() -> ResponseReturnValue:
        content = (Path(__file__).with_name("pages") / file).read_bytes()
        return Response(content, mimetype="text/html")

    @blueprint.post("/note")
    def note() -> ResponseReturnValue:
        mark(tag(), request.get_data(as_text=True))
        return "", 204

    return blueprint


def held() -> dict[str, int]:
    """What this process holds."""
    gc.collect()
    greenlet = sys.modules.get("greenlet")
    greenlets = [
        thing for thing in gc.get_objects() if greenlet and isinstance(thing, greenlet.greenlet)
    ]
    return {
        "pid": os.getpid(),
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "threads": len(list(Path("/proc/self/task").iterdir())),
        "greenlets": sum(not thing.dead for thing in greenlets),
    }


def gate(name: str) -> threading.Condition:
    return _gates.setdefault(name, threading.Condition())


def wait_for_wake(name: str, seen: int) -> int:
    """Block until the tag has been woken more often than `seen`; no timer is involved."""
    with gate(name):
        while _woken.get(name, 0) <= seen:
            gate(name).wait()
        return _woken[name]


def open_gate(name: str) -> int:
    """Let all that wait for the tag go on."""
    with gate(name):
        _woken[name] = _woken.get(name, 0) + 1
        gate(name).notify_all()
        return _woken[name]
