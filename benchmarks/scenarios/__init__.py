"""One file a scenario: `SCENARIO` says what is measured and how. A new one is a new file here."""

from __future__ import annotations

import importlib
import pkgutil

from benchmarks.scenario import Scenario


def names() -> list[str]:
    """Give the names of all scenarios."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> Scenario:
    """Give a scenario by its name."""
    scenario = importlib.import_module(f"{__name__}.{name}").SCENARIO
    if not isinstance(scenario, Scenario):
        raise TypeError(f"benchmarks/scenarios/{name}.py: SCENARIO is not a Scenario")
    return scenario
