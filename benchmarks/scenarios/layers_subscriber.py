"""Layers: where the CPU of a new subscriber goes."""

from __future__ import annotations

from benchmarks.layers import layers_of
from benchmarks.open_streams import SUBSCRIPTION
from benchmarks.subscribers import with_log

SCENARIO = layers_of(
    "layers_subscriber",
    "a new subscriber",
    "subscribe",
    ("sseflask_worker", "sseflask_service"),
    SUBSCRIPTION.make,
    prepare=with_log,
)
