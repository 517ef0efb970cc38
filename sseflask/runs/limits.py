"""How much a run may take, and all of them; what is told to those that reach a bound. No I/O."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sseflask.errors import SHOULD_RETRY, Failure

__all__ = ["Bounds", "log_full", "too_large", "too_long"]


@dataclass(frozen=True)
class Bounds:
    """What runs may take.

    Args:
        run_bytes: of one run, with what the log takes for each frame beside its bytes.
        run_seconds: of one run, from its beginning to its end.
        log_bytes: of the whole log.
    """

    run_bytes: float = math.inf
    run_seconds: float = math.inf
    log_bytes: float = math.inf

    @property
    def most_run_bytes(self) -> float:
        """Bytes of one run: a single one can't fill the log."""
        return min(self.run_bytes, self.log_bytes / 4)


def too_large(most: float) -> Failure:
    """The failure of a run that brings more bytes than it may have."""
    return Failure(
        f"The completion has more than the {most:.0f} bytes that this server keeps of one "
        "(SSEFLASK_MAX_RUN_BYTES, and a quarter of SSEFLASK_RUN_LOG_BYTES): its upstream was left, "
        "and what came before can be read.",
        status=502,
        code="run_too_large",
        headers={SHOULD_RETRY: "false"},
    )


def too_long(most: float) -> Failure:
    """The failure of a run that goes on for longer than it may."""
    return Failure(
        f"The completion has run for the {most:g} s that this server lets one run "
        "(SSEFLASK_MAX_RUN_SECONDS): its upstream was left, and what came before can be read.",
        status=504,
        code="run_too_long",
        headers={SHOULD_RETRY: "false"},
    )


def log_full() -> Failure:
    """The failure of a run that can't begin, or had to end, as the log is full of running ones."""
    return Failure(
        "This server keeps no more of the completions that are running (SSEFLASK_RUN_LOG_BYTES): "
        "please try again when some of them have ended.",
        status=503,
        code="run_log_full",
        headers={"Retry-After": "5"},
        transient=True,
    )
