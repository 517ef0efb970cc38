"""What Redis' errors mean, and how they are told to people."""

from __future__ import annotations

import re

from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    MovedError,
    NoPermissionError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import TimeoutError as NoAnswer

from sseflask.store.api import StoreBusy, StoreError
from sseflask.store.run_api import StoreFull

#: Beginnings of errors that say: not this server, or not now.
_AWAY = re.compile(r"-?(?:READONLY|LOADING|MASTERDOWN|CLUSTERDOWN|NOAUTH|WRONGPASS)\b")

#: The word in capitals that tells what kind of error it is. In scripts Redis 6 puts text before it.
_KIND = re.compile(r"(?:^|-)(OOM|MISCONF|NOREPLICAS|NOPERM|BUSY|READONLY|TRYAGAIN|UNKILLABLE)\b")

#: What Redis adds to the errors of scripts, and the user's name.
_WHERE, _USER = re.compile(r"^.*@user_script:.*?: -?|,? ?script: .*$"), re.compile(r"\bUser \S+")


def is_away(error: Exception) -> bool:
    """Whether an error means that the server can't be used at all now."""
    if isinstance(error, ResponseError):
        return isinstance(
            error,
            ReadOnlyError | ClusterDownError | AskError | TryAgainError | BusyLoadingError,
        ) or bool(_AWAY.search(str(error)))
    return isinstance(error, ConnectionLost | NoAnswer | OSError)


def is_denied(error: BaseException) -> bool:
    """Whether the user lacks a right."""
    return isinstance(error, ResponseError) and (
        isinstance(error, NoPermissionError)
        or _code(error) == "NOPERM"
        or "can't run this command" in str(error)  # in a script
    )


def stores_nothing(error: Exception) -> bool:
    """Whether the server can be read, but refuses everything that is to be stored."""
    return _code(error) in ("OOM", "OutOfMemoryError", "MISCONF", "NOREPLICAS")


def _code(error: BaseException) -> str:
    """What kind of error it is."""
    found = _KIND.search(str(error))
    # Older versions of redis-py have no code, and its class says the same.
    return found[1] if found else getattr(error, "status_code", None) or type(error).__name__


def _reason(error: Exception) -> str:
    """The server's own words, without what names it or its user."""
    if isinstance(error, NoAnswer):
        return "it does not answer"
    if not isinstance(error, ResponseError | BusyLoadingError | AuthenticationError):
        return "it can't be reached"
    text = _USER.sub("this user", _WHERE.sub("", str(error).partition("\n")[0]))
    code = _code(error)
    return (text if not code.isupper() or text.startswith(code) else f"{code} {text}")[:300]


def is_refused(error: Exception) -> bool:
    """Whether no server is there, or it is there and does not let anybody in now."""
    return isinstance(error, BusyLoadingError | AuthenticationError) or isinstance(
        error.__context__, ConnectionRefusedError | FileNotFoundError
    )


def store_error(error: Exception, name: str) -> StoreError:
    """Redis' errors in words for people."""
    found = _store_error(error, name)
    found.reason = _reason(error)
    return found


def _store_error(error: Exception, name: str) -> StoreError:
    text, code = str(error), _code(error)
    if isinstance(error, NoAnswer) or code in ("BUSY", "UNKILLABLE"):
        return StoreBusy(f"the Redis server at {name} did not answer in time")
    if code in ("OOM", "OutOfMemoryError"):
        return StoreFull(
            f"the memory of the Redis server at {name} is full: give it more (maxmemory)"
        )
    if code in ("READONLY", "ReadOnlyError"):
        return StoreError(
            f"the Redis server at {name} is a replica, which can't be written to: name the master"
        )
    if isinstance(error, AuthenticationError):
        return StoreError(f"the Redis server at {name} refuses the user or the password: {text}")
    if is_denied(error):
        return StoreError(f"the user of the Redis server at {name} lacks a permission: {text}")
    if isinstance(error, BusyLoadingError):
        return StoreError(f"the Redis server at {name} still loads its data")
    if "WRONGTYPE" in text:
        return StoreError(
            f"at the Redis server at {name} another application uses keys that begin as ours do: "
            f"choose a prefix in the URL, and delete them ({text})"
        )
    if isinstance(error, TryAgainError) or type(error) is AskError:
        return StoreError(f"the Redis cluster at {name} moves what it has to another server now")
    if isinstance(error, MovedError):
        return StoreError(
            f"the Redis server at {name} is one of a cluster, and another one has the keys now: "
            "redis+cluster:// at the beginning of the URL finds it"
        )
    if code == "MISCONF":
        return StoreError(f"the Redis server at {name} can't save to its disk, so it refuses")
    if code == "NOREPLICAS":
        return StoreError(f"the Redis server at {name} lacks replicas, so it refuses")
    if code in ("CLUSTERDOWN", "ClusterDownError"):
        return StoreError(f"the Redis cluster at {name} is not complete now: {text}")
    if isinstance(error, ConnectionLost | OSError):
        return StoreError(f"the Redis server at {name} can't be reached: {text}")
    return StoreError(f"the Redis server at {name} refuses: {text}")
