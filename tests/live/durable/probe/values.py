"""What generators return, and what can't be done in them any more: tests are made of each."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from typing import Any

#: What JSON can carry, as the application writes it.
RETURNED: Mapping[str, Any] = {
    "nothing": None,
    "number": 7,
    "text": "bye",
    "lines": "two\nlines",
    "object": {"answer": 42, "of": ["x", None, True]},
    "list": [1, "two", {"three": 3}],
    "empty": {},
    "false": False,
    "date": datetime.date(2026, 11, 29),
}
#: What a completion that was stopped says at its end: here a generator returns it.
REASON = {"finish_reason": "stopped"}
#: What JSON can't carry.
UNSPEAKABLE: Mapping[str, Any] = {
    "thing": object(),
    "nan": math.nan,
    "bytes": b"\xff",
    "set": {1, 2},
    "inside": {"deep": [object()]},
}
#: What a generator tries when no response can be changed any more.
FORBIDDEN = (
    *("key", "delete", "update", "pop", "clear", "setdefault", "modified", "permanent", "flash"),
    "after_this_request",
)
