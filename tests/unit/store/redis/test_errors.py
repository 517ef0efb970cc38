"""What Redis says, in words for people."""

from __future__ import annotations

import pytest
from redis.exceptions import MovedError, ResponseError
from redis.exceptions import TimeoutError as NoAnswer

from sseflask.store.api import StoreBusy, StoreError
from sseflask.store.redis.errors import is_away, store_error
from sseflask.store.run_api import StoreFull


@pytest.mark.parametrize(
    ("error", "kind", "says", "away"),
    [
        (NoAnswer(""), StoreBusy, r"in time", True),
        (ConnectionResetError(104, "reset"), StoreError, r"reached: .*reset", True),
        (ResponseError("BUSY Redis is busy running a script."), StoreBusy, r"in time", False),
        # As Redis 6 has it.
        (
            ResponseError(
                "Error running script (call to f_1): @user_script:3: @user_script: 3: "
                "-OOM command not allowed when used memory > 'maxmemory'."
            ),
            StoreFull,
            "memory",
            False,
        ),
        (
            ResponseError(
                "Error running script (call to f_1): @user_script:3: @user_script: 3: "
                "-READONLY You can't write against a read only replica."
            ),
            StoreError,
            "replica",
            True,
        ),
        (ResponseError("MISCONF Redis is configured"), StoreError, "save to its disk", False),
        (MovedError("5 h:2"), StoreError, "cluster://", True),
        (ResponseError("WRONGTYPE Operation against"), StoreError, "another application", False),
        (
            ResponseError("The user executing the script can't run this command or subcommand"),
            StoreError,
            "lacks a permission",
            False,
        ),
        (ResponseError("LOADING Redis is loading"), StoreError, "refuses", True),
        (ResponseError("UNBLOCKED force unblock"), StoreError, "refuses: UNBLOCKED", False),
    ],
)
def test_errors_that_are_hard_to_provoke(
    error: Exception, kind: type[StoreError], says: str, away: bool
) -> None:
    error.status_code = "ERR"  # type: ignore[attr-defined]  # as the newest versions have it
    found = store_error(error, "h:1")
    assert type(found) is kind
    with pytest.raises(kind, match=says):
        raise found
    assert "h:1" in str(found)
    assert is_away(error) is away
