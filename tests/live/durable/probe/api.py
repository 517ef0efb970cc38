"""The one place that has the library's names: what the tests ask for, and how it is spelled.

The tests were written from the issue alone: a name that the library spells in another way is
changed here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

#: What a test may ask for in the query: the library's parameter, and how its text is read.
PARAMETERS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "owner": ("owner", str),
    "owner_number": ("owner", int),
    "key": ("idempotency_key", str),
    "on_disconnect": ("on_disconnect", lambda text: float(text) if text[0].isdigit() else text),
    "heartbeat": ("heartbeat", float),
    "max_bytes": ("max_bytes", int),
    "max_seconds": ("max_seconds", float),
    "keep": ("keep", float),
    "format": ("format", str),
}
#: The parameter that has the function with which another worker goes on.
RESUME = "resume"
#: The parameter of ``sse.attach`` with a cursor.
CURSOR = "last_event_id"


def parameters(asked: Mapping[str, str]) -> dict[str, Any]:
    """The keyword arguments of ``sse.run`` and ``sse.start``."""
    found = {}
    for name, (spelled, read) in PARAMETERS.items():
        if name in asked:
            found[spelled] = read(asked[name])
    return found


def data_of(item: Any) -> Any:
    """The data of an item of a result, or of the last item that a resuming function is given.

    It is what was yielded: the data of an `Event`, or the value.
    """
    return getattr(item, "data", item)


def summary_of(result: Any) -> dict[str, Any]:
    """What ``sse.result`` gives, for a test to compare."""
    return {
        "state": result.state,
        "value": result.value,
        "error": result.error,
        "items": [event.data for event in result.events],
    }
