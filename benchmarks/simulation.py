"""Streams that live long, on several machines: how they are spread after a restart or a deploy.

python -m benchmarks.simulation benchmarks/results/NAME.json   puts its figures there, draws charts

Nothing is measured here: clients, machines and a load balancer that gives each connection to a
random machine are numbers. The same seed gives the same figures.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.report import merged
from benchmarks.scenario import Metric

SEED = 20261128

MACHINES = 10
STREAMS = 1000
"""Streams of each machine where what is asked is their share; more would take longer to count."""

VISIT = 4 * 3600.0
"""Seconds that a user stays, on average; then another one comes."""

HOURS = 12.0
_STEP = 60.0

LIFETIMES: Mapping[str, float] = {
    "no lifetime": math.inf,
    "lifetime 1 hour": 3600.0,
    "lifetime 15 minutes": 900.0,
}
_SPREAD = (0.8, 1.0)
"""The part of the lifetime that a stream gets, as `SSEFLASK_LIFETIME` is spread."""

CLIENTS = 10_000
"""Streams of each machine where all of them come back."""

STORM_MACHINES = 4
FIRST_RECONNECT = 0.5
JITTERS: Mapping[str, float] = {
    "jitter 0": 0.0,
    "jitter 2.5 s": 2.5,
    "jitter 10 s": 10.0,
    "jitter 30 s": 30.0,
}
DOWN = 5.0
"""Seconds without a server, where the old one ends before the new one answers."""

SERVED = 1500.0
"""Clients that a worker takes back in a second; the scenario `storm` measures it."""

BIN = 0.25
"""Seconds of which the arrivals are counted together."""


@dataclass(frozen=True)
class Balance:
    """How the streams are spread at a moment, as parts of what a machine would have of an even
    spread: the restarted machine, and the fullest."""

    seconds: float
    restarted: float
    fullest: float


def after_a_restart(lifetime: float, seed: int = SEED) -> list[Balance]:
    """Restart one machine of an even spread and see its share, minute by minute."""
    rng = random.Random(seed)
    loads = [0] * MACHINES
    ends: list[tuple[float, int]] = []
    for _ in range(STREAMS):
        for place in range(MACHINES):
            # Streams have begun at any time before; those of the restarted machine begin now.
            machine, begun = place, rng.random()
            if place == 0:
                machine, begun = rng.randrange(1, MACHINES), 0.0
            loads[machine] += 1
            heapq.heappush(ends, (_life(lifetime, rng, begun), machine))
    balances = []
    for step in range(int(HOURS * 3600 / _STEP) + 1):
        now = step * _STEP
        while ends[0][0] <= now:
            ended, machine = ends[0]
            loads[machine] -= 1
            machine = rng.randrange(MACHINES)
            loads[machine] += 1
            heapq.heapreplace(ends, (ended + _life(lifetime, rng), machine))
        balances.append(Balance(now, loads[0] / STREAMS, max(loads) / STREAMS))
    return balances


def _life(lifetime: float, rng: random.Random, begun: float = 0.0) -> float:
    """Give the seconds that are left of a stream, of which a part is over."""
    rotated = lifetime * rng.uniform(*_SPREAD) * (1 - begun)
    return min(rotated, rng.expovariate(1 / VISIT))


def after_a_rolling_deploy(lifetime: float, seed: int = SEED) -> float:
    """Restart the machines one after the other, one each minute; give the fullest one's part.

    Streams that end by themselves in these minutes are few, without a lifetime; so they are left
    out, and a lifetime is one more random spread of what it has ended by then.
    """
    rng = random.Random(seed)
    places = [place for place in range(MACHINES) for _ in range(STREAMS)]
    for restarted in range(MACHINES):
        others = [machine for machine in range(MACHINES) if machine != restarted]
        rotated = 60 / lifetime
        places = [
            rng.choice(others)
            if place == restarted
            else rng.randrange(MACHINES)
            if rng.random() < rotated
            else place
            for place in places
        ]
    return max(places.count(machine) for machine in range(MACHINES)) / STREAMS


@dataclass(frozen=True)
class Storm:
    """Arrivals at one machine, in each `BIN` seconds, and when the last client was served."""

    arrivals: Sequence[int]
    served: float

    @property
    def peak(self) -> float:
        """The most arrivals, in a second."""
        return max(self.arrivals) / BIN


def after_a_deploy(
    jitter: float, clients: int = CLIENTS, down: float = 0.0, seed: int = SEED
) -> Storm:
    """Have clients come back to one machine, each after its own time, again while it is down."""
    rng = random.Random(seed)
    moments = []
    for _ in range(clients):
        # In milliseconds, as `retry:` has them. A browser waits as long again after a refusal.
        wait = round((FIRST_RECONNECT + rng.random() * jitter) * 1000) / 1000
        moments.append(wait * max(math.ceil(down / wait), 1))
    moments.sort()
    arrivals = [0] * (int(moments[-1] / BIN) + 1)
    free = 0.0
    for moment in moments:
        arrivals[int(moment / BIN)] += 1
        free = max(free, moment) + 1 / SERVED
    return Storm(arrivals, free)


IMBALANCE = (
    Metric("minutes_to_90", "minutes until it has 90 % of its share", ",.0f"),
    Metric("after_10_minutes", "% of its share after 10 minutes", ".0f"),
    Metric("fullest", "fullest machine then, %", ".0f"),
    Metric("fullest_rolling", "fullest after a rolling deploy, %", ".0f"),
    Metric("reconnects", "reconnections/s of 100,000", ".0f"),
)
STORM = (
    Metric("peak", "all at once: arrivals/s at a machine", ",.0f"),
    Metric("served", "s until all are served", ".1f"),
    Metric("peak_down", "down for 5 s before: arrivals/s", ",.0f"),
    Metric("peak_rolling", "one of 4 machines at a time: arrivals/s at another", ",.0f"),
)


def _imbalance() -> Iterator[tuple[str, dict[str, float]]]:
    for name, lifetime in LIFETIMES.items():
        balances = after_a_restart(lifetime)
        reached = next((each.seconds for each in balances if each.restarted >= 0.9), math.inf)
        figures = {
            "after_10_minutes": balances[10].restarted * 100,
            "fullest": balances[10].fullest * 100,
            "fullest_rolling": after_a_rolling_deploy(lifetime) * 100,
            # A lifetime and the visits end streams independently of each other.
            "reconnects": 100_000 * (1 / (lifetime * sum(_SPREAD) / 2) + 1 / VISIT),
        }
        if reached < math.inf:
            figures["minutes_to_90"] = reached / 60
        yield name, figures


def _storms() -> Iterator[tuple[str, dict[str, float]]]:
    for name, jitter in JITTERS.items():
        storm = after_a_deploy(jitter)
        others = STORM_MACHINES - 1
        yield (
            name,
            {
                "peak": storm.peak,
                "served": storm.served,
                "peak_down": after_a_deploy(jitter, down=DOWN).peak,
                "peak_rolling": after_a_deploy(jitter, CLIENTS // others).peak,
            },
        )


def document() -> dict[str, Any]:
    """Give the figures as a result file has them; its servers are what was varied."""
    parts = {
        "imbalance": (
            f"Imbalance: one of {MACHINES} machines restarts (simulated)",
            IMBALANCE,
            MACHINES * STREAMS,
            dict(_imbalance()),
        ),
        "deploy_storm": (
            f"After a deploy: {CLIENTS:,} clients of each machine come back (simulated)",
            STORM,
            CLIENTS,
            dict(_storms()),
        ),
    }
    return {
        "date": "",
        "machine": {},
        "versions": {},
        "servers": {
            _key(name): {"title": name, "family": "bare"}
            for *_, figures in parts.values()
            for name in figures
        },
        "scenarios": {
            scenario: {
                "title": title,
                "reference": _key(next(iter(figures))),
                "metrics": [asdict(metric) for metric in metrics],
                "charts": [],
                "options": {"streams": streams, "seconds": 0, "patience": 0},
                "samples": {
                    _key(name): [{"values": values, "faults": [], "remarks": []}]
                    for name, values in figures.items()
                },
                "figures": {},
            }
            for scenario, (title, metrics, streams, figures) in parts.items()
        },
    }


def _key(name: str) -> str:
    return name.replace(" ", "_")


def main(arguments: Sequence[str] | None = None) -> None:
    """Put the figures into a result file, and draw the charts."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.simulation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("result", type=Path, help="JSON file that python -m benchmarks wrote")
    result: Path = parser.parse_args(arguments).result
    old = json.loads(result.read_text(encoding="utf-8"))
    new = {**merged(old, document()), "date": old["date"]}
    result.write_text(json.dumps(new, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    from benchmarks.simulation_charts import FOLDER, draw

    draw(FOLDER)
    sys.stdout.write(f"changed: {result}, charts in {FOLDER}\n")


if __name__ == "__main__":
    main()
