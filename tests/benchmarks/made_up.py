"""A small made-up result: no figure of it was ever measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

COST = {
    "key": "cost",
    "heading": "CPU µs/event",
    "form": ".2f",
    "wall": False,
    "more_is_better": False,
}
SPEED = {
    "key": "speed",
    "heading": "events/s",
    "form": ",.0f",
    "wall": True,
    "more_is_better": True,
}
SERVERS = {
    "ours": {"title": "Flask + sseflask, gunicorn", "family": "sseflask"},
    "plain": {"title": "Flask generator, gunicorn", "family": "wsgi"},
    "quick": {"title": "Starlette, uvicorn", "family": "asgi"},
    "slow": {"title": "FastAPI, uvicorn", "family": "asgi"},
    "bare": {"title": "bare loop", "family": "bare"},
}


def rounds(
    *values: Mapping[str, float], faults: Sequence[str] = (), remarks: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """One sample for each round, all with the same faults and remarks."""
    return [
        {"values": dict(each), "faults": list(faults), "remarks": list(remarks)} for each in values
    ]


def result(**samples: list[dict[str, Any]]) -> dict[str, Any]:
    """A result file's JSON with one scenario; what is given replaces a server's samples."""
    own = {
        "slow": rounds(*({"cost": 40, "speed": 10} for _ in range(3))),
        "ours": rounds(
            {"cost": 10, "speed": 40}, {"cost": 12, "speed": 50}, {"cost": 30, "speed": 60}
        ),
        "plain": rounds(
            {"cost": 20, "speed": 20}, {"cost": 16, "speed": 20}, {"cost": 60, "speed": 20}
        ),
        "quick": rounds(
            {"cost": 15, "speed": 20}, {"cost": 20, "speed": 25}, {"cost": 25, "speed": 30}
        ),
        "bare": rounds({}, faults=["has no route 'tick'"]),
        **samples,
    }
    return {
        "date": "2001-02-03T04-05-06",
        "machine": {"processor": "Abacus", "cores": 2, "kernel": "6.1", "python": "3.11.2"},
        "versions": {"uvicorn": "0.1", "flask": "3.1"},
        "rounds": 3,
        "servers": SERVERS,
        "scenarios": {
            "tick": {
                "title": "Tick: many streams",
                "reference": "plain",
                "metrics": [COST, SPEED],
                "charts": ["cost", "speed"],
                "options": {"streams": 500, "seconds": 5, "patience": 10},
                "samples": own,
                "figures": {},
            }
        },
    }
