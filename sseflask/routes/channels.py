"""Channels over HTTP: publish to one, subscribe to one or many."""

from __future__ import annotations

from flask import Blueprint, Response, current_app, jsonify, request

from sseflask.auth import require_publish, require_subscribe
from sseflask.channels.log import KeyReused, LogError
from sseflask.channels.names import Pattern, check_name
from sseflask.channels.subscription import log_unavailable
from sseflask.extension import SSE, channels_of
from sseflask.routes.idempotency import REPLAYED, key_reused, scoped_key
from sseflask.routes.limits import account_of, count_publication
from sseflask.routes.parameters import invalid
from sseflask.routes.publication import read_publication

__all__ = ["blueprint"]

blueprint = Blueprint("channels", __name__)

#: Names and patterns in one subscription, and how many of them may have wildcards: for each of
#: those the log may have to go through the names of all its channels, once.
MAX_CHANNELS, MAX_WILDCARDS = 100, 20


@blueprint.get("/channels/<name>")
def subscribe(name: str) -> Response:
    """Stream what is published to a channel, or to the channels of a pattern."""
    return _subscribe([name])


@blueprint.get("/channels")
def subscribe_to_several() -> Response:
    """Stream what is published to several channels and patterns: ``?c=a&c=b.*``."""
    names = request.args.getlist("c")
    if not 1 <= len(names) <= MAX_CHANNELS:
        raise invalid(
            f"Name 1 to {MAX_CHANNELS} channels or patterns: /channels?c=orders.eu&c=news.*",
            param="c",
            code="invalid_channel",
        )
    return _subscribe(names)


def _subscribe(names: list[str]) -> Response:
    patterns = [Pattern.parse(name) for name in names]
    if sum(not pattern.is_name for pattern in patterns) > MAX_WILDCARDS:
        raise invalid(
            f"A subscription may have {MAX_WILDCARDS} patterns with wildcards, and names besides.",
            param="c",
            code="invalid_channel",
        )
    caller = require_subscribe(patterns)
    sse: SSE = current_app.extensions["sseflask"]
    return sse.subscribe(*names, expires_at=caller.expires)


@blueprint.post("/channels/<name>")
def publish(name: str) -> tuple[Response, int]:
    """Store one event, or an array of them together, and answer with the id or ids."""
    caller = require_publish(check_name(name))
    count_publication(account_of(caller.subject))
    publication = read_publication()
    key = scoped_key(caller.subject, name)
    try:
        ids = channels_of(current_app).publish(
            name, publication.frames, key=key, digest=publication.digest() if key else b""
        )
    except LogError as error:
        raise log_unavailable() from error
    if isinstance(ids, KeyReused):
        raise key_reused("event")
    response = jsonify({"ids": ids} if publication.several else {"id": ids[0]})
    # The stream that begins with what was published (RFC 9110, section 15.3.2).
    epoch, _, number = ids[0].rpartition("-")
    before = f"{epoch}-{int(number) - 1}"
    # Not by url_for, which takes as long as all the rest of this function.
    response.headers["Location"] = f"{request.script_root}{request.path}?last_event_id={before}"
    if ids.repeated:
        response.headers[REPLAYED] = "true"
    return response, 201
