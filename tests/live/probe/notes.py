"""What the probe's views share: notes for the test, gates that the test opens, the query.

What happens inside is noted in files, one for each ``tag``, so that it can be read while the
process is busy and after it has ended.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from flask import request

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


def gate(name: str) -> threading.Condition:
    return _gates.setdefault(name, threading.Condition())


def wait_for_wake(name: str, seen: int) -> int:
    """Block until the tag has been woken more often than `seen`; no timer is involved."""
    with gate(name):
        while _woken.get(name, 0) <= seen:
            gate(name).wait()
        return _woken[name]


def open_gate(name: str) -> int:
    """Let everybody who waits for the tag go on."""
    with gate(name):
        _woken[name] = _woken.get(name, 0) + 1
        gate(name).notify_all()
        return _woken[name]
