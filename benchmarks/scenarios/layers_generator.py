"""Layers: where the CPU of a new generator stream goes."""

from __future__ import annotations

from benchmarks.layers import layers_of
from benchmarks.open_streams import ONE_EVENT

SCENARIO = layers_of(
    "layers_generator",
    "a new generator stream",
    "open",
    ("sseflask_worker", "flask_gevent"),
    ONE_EVENT.make,
)
