"""``sseflask migrate``: the stored events and completions, from files to a server or back."""

from __future__ import annotations

import sys
from pathlib import Path
from urllib.parse import urlsplit

import click
from flask import Flask

from sseflask.config import Settings, load
from sseflask.store.api import EventLimits, StoreError
from sseflask.store.migration import Addresses, count, move, open_transfer
from sseflask.store.redis import is_redis
from sseflask.store.run_api import RunLimits
from sseflask.store.transfer import Counts

#: Words in place of an address.
_FILES, _REDIS = "files", "redis"

#: Bytes after which the progress is shown again.
_SHOWN = 1 << 20


def _addresses(where: str, settings: Settings) -> Addresses:
    if where == _REDIS:
        if settings.store is None:
            raise click.UsageError("set REDIS_URL to the URL of the Redis server")
        return Addresses(settings.store, settings.store)
    if is_redis(where):
        parts = urlsplit(where)
        if parts.password is not None or "password=" in parts.query:
            raise click.UsageError(
                "a password in an argument can be seen by others: set REDIS_URL, and write redis"
            )
        return Addresses(where, where)
    if "://" in where:
        raise click.UsageError(f"{where} is neither a folder nor a URL of a Redis server")
    if where != _FILES:
        return Addresses(str(Path(where, "channels.sqlite3")), str(Path(where, "runs.sqlite3")))
    folder = Path(Flask("sseflask").instance_path)
    found = Addresses(
        settings.channel_log or str(folder / "channels.sqlite3"),
        settings.run_log or str(folder / "runs.sqlite3"),
    )
    if any(map(is_redis, found)):
        raise click.UsageError("SSEFLASK_CHANNEL_LOG and SSEFLASK_RUN_LOG have to name files")
    return found


@click.command("migrate")
@click.option(
    "--from",
    "source",
    metavar="WHERE",
    default=_FILES,
    show_default=True,
    help="Where they are.",
)
@click.option(
    "--to",
    "target",
    metavar="WHERE",
    default=_REDIS,
    show_default=True,
    help="Where they are to be; nothing may be stored there yet.",
)
@click.option("--dry-run", is_flag=True, help="Only count, and say whether it can be done.")
def command(source: str, target: str, dry_run: bool) -> None:
    """Move the history of channels and the ended completions to Redis, or back.

    WHERE is a word or an address: files (those of the settings, or of the instance folder), redis
    (the server of REDIS_URL), a folder with channels.sqlite3 and runs.sqlite3, or a URL without a
    password. The environment has the service's settings.

    The service has to be stopped meanwhile. Ids stay valid: clients that come back with their old
    id, or repeat an Idempotency-Key, get what they would have got. What is moved stays where it
    was too. The shortest pause: try it with --dry-run while the service runs; stop the service;
    migrate; start it with REDIS_URL, or without it after the way back.
    """
    settings = load()
    limits = (
        EventLimits(settings.history_events, settings.history_seconds),
        RunLimits(settings.run_seconds),
    )
    places = [_addresses(where, settings) for where in (source, target)]
    if is_redis(places[0].events) == is_redis(places[1].events):
        raise click.UsageError("one of the places has to be a Redis server, and the other files")
    try:
        here, there = (open_transfer(place, *limits) for place in places)
        if dry_run:
            counts, reason = count(here, there)
            click.echo(f"{_text(counts)}: from {here.name} to {there.name}")
            if reason:
                raise StoreError(reason)
            return
        progress = _Progress()
        try:
            moved = move(here, there, progress)
        finally:
            progress.end()
    except StoreError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"moved {_text(moved)}: from {here.name} to {there.name}")
    if moved.running:
        click.echo(f"left out {_number(moved.running, 'completion')} that had not ended")
    click.echo(
        "now start the service with REDIS_URL, without SSEFLASK_CHANNEL_LOG and SSEFLASK_RUN_LOG"
        if is_redis(places[1].events)
        else "now start the service without REDIS_URL"
    )


class _Progress:
    """Shows how far it is, if there is a terminal."""

    def __init__(self) -> None:
        self._wanted = sys.stderr.isatty()
        self._next = 0
        self._shown = False

    def __call__(self, moved: Counts, wanted: Counts) -> None:
        if self._wanted and moved.bytes >= self._next:
            self._next = moved.bytes + _SHOWN
            self._shown = True
            click.echo(
                f"\r{_size(moved.bytes)} of about {_size(wanted.bytes)} ", nl=False, err=True
            )

    def end(self) -> None:
        if self._shown:
            click.echo(err=True)


def _text(counts: Counts) -> str:
    return (
        f"{_number(counts.events, 'event')} of {_number(counts.channels, 'channel')}, "
        f"{_number(counts.keys, 'key')} of publishers, {_number(counts.runs, 'completion')}, "
        f"{_size(counts.bytes)}"
    )


def _number(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _size(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"
