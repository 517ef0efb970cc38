"""What a server did wrong."""

from __future__ import annotations

from typing import NamedTuple


class Fault(NamedTuple):
    """A kind of fault and how often it was seen."""

    kind: str
    amount: int
