"""What a client gets of a run that did not come to its own end, or can't begin. No I/O."""

from __future__ import annotations

from sseflask.errors import SHOULD_RETRY, Failure


def interrupted() -> Failure:
    """The failure of a run whose worker died, or was shut down, before its end."""
    return Failure(
        "The server that ran this stopped before it was complete; please ask again.",
        status=503,
        code="interrupted",
        headers={"Retry-After": "5"},
    )


def stopped() -> Failure:
    """The end of a run that a client stopped, for clients that know only errors."""
    return Failure(
        "The run was stopped before it was complete.",
        status=409,
        type="run_stopped",
        code="stopped",
    )


def cancelled() -> Failure:
    """The end of a run whose last viewer had left, for clients that know only errors."""
    return Failure(
        "The run was cancelled before it was complete: nobody was there to read it.",
        status=409,
        type="run_cancelled",
        code="cancelled",
    )


def internal() -> Failure:
    """The failure of a run whose generator raised an error, which only the server's log has."""
    return Failure("The run failed on the server.", code="internal_error")


def too_large(most: float) -> Failure:
    """The failure of a run that brings more bytes than it may have."""
    return Failure(
        f"The run has more than the {most:.0f} bytes that this server keeps of one "
        "(SSEFLASK_MAX_RUN_BYTES, and a quarter of SSEFLASK_RUN_LOG_BYTES): it was ended, and what "
        "came before can be read.",
        status=502,
        code="run_too_large",
        headers={SHOULD_RETRY: "false"},
    )


def too_long(most: float) -> Failure:
    """The failure of a run that goes on for longer than it may."""
    return Failure(
        f"The run has gone on for the {most:g} s that this server lets one run "
        "(SSEFLASK_MAX_RUN_SECONDS): it was ended, and what came before can be read.",
        status=504,
        code="run_too_long",
        headers={SHOULD_RETRY: "false"},
    )


def too_many(running: int) -> Failure:
    """The failure of a run that can't begin, as so many of its account are running."""
    return Failure(
        f"{running} runs of yours are going on, and this server lets no more go on at once "
        "(SSEFLASK_MAX_RUNS): wait for one to end, or stop one with DELETE /runs/<id>.",
        status=429,
        type="rate_limit_error",
        code="too_many_runs",
        headers={"Retry-After": "5"},
        transient=True,
    )


def store_full() -> Failure:
    """The failure of a run that can't begin, or had to end, as running ones fill the store."""
    return Failure(
        "This server keeps no more of what is running (SSEFLASK_RUN_LOG_BYTES): please try again "
        "when some of it has ended.",
        status=503,
        code="run_log_full",
        headers={"Retry-After": "5"},
        transient=True,
    )
