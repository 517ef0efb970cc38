"""All the ways in which a client comes back to a run with the last id it has had."""

from __future__ import annotations

from collections.abc import Callable

from tests.live.kit.runs import START, path_of


def by_header(format: str, message: str, last: str) -> tuple[str, dict[str, str]]:
    return path_of(START, user_message=message, format=format), {"Last-Event-ID": last}


def by_query(format: str, message: str, last: str) -> tuple[str, dict[str, str]]:
    return path_of(START, user_message=message, format=format, last_event_id=last), {}


def header_wins(format: str, message: str, last: str) -> tuple[str, dict[str, str]]:
    """A page's first cursor stays in its URL while its EventSource moves on."""
    run = last.partition(".")[0]
    path = path_of(START, user_message=message, format=format, last_event_id=f"{run}.0")
    return path, {"Last-Event-ID": last}


def at_the_run(format: str, _: str, last: str) -> tuple[str, dict[str, str]]:
    return path_of(f"/runs/{last.partition('.')[0]}", format=format), {"Last-Event-ID": last}


def at_the_run_by_query(format: str, _: str, last: str) -> tuple[str, dict[str, str]]:
    run = last.partition(".")[0]
    return path_of(f"/runs/{run}", format=format, last_event_id=last), {}


#: How to come back: of a format, the message and the last id, the path and the headers.
Way = Callable[[str, str, str], tuple[str, dict[str, str]]]
WAYS: list[Way] = [by_header, by_query, header_wins, at_the_run, at_the_run_by_query]
