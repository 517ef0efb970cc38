"""Channels over HTTP: publish to one, subscribe to one or many."""

from __future__ import annotations

from flask import Blueprint, Response, current_app, jsonify, request

from sseflask.auth.access import require_publish, require_subscribe
from sseflask.channels.event_frames import check_types
from sseflask.errors import invalid
from sseflask.extension import channels_of, current_sse
from sseflask.flask_context import current_request
from sseflask.routes.publication import read_publication
from sseflask.store.api import KeyReused, StoreError, key_reused, store_unavailable
from sseflask.store.names import Pattern, check_name, is_own
from sseflask.web.idempotency import REPLAYED, given_key, scoped
from sseflask.web.rate_limits import account_of, current_limits

blueprint = Blueprint("channels", __name__)

#: The most names and patterns in one subscription, and of patterns with wildcards: for each of
#: those the store may have to search the names of all its channels, once.
MAX_CHANNELS, MAX_WILDCARDS = 100, 20

#: The most types of events after which a subscription ends, and the most characters of each.
MAX_TYPES, MAX_TYPE = 20, 100


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
    until = _until()
    caller = require_subscribe(patterns)
    return current_sse().subscribe(*names, until=until, expires_at=caller.expires)


def _until() -> list[str] | None:
    """The types of events after which the stream ends: ``?until=done&until=error``."""
    types = current_request().args.getlist("until")
    if not types:
        return None
    try:
        check_types(types)
    except ValueError as error:
        raise invalid(f"The parameter until is not valid: {error}.", param="until") from None
    if len(types) > MAX_TYPES or max(map(len, types)) > MAX_TYPE:
        raise invalid(
            f"A subscription may end after {MAX_TYPES} types of events, of {MAX_TYPE} characters "
            "each.",
            param="until",
        )
    return types


@blueprint.post("/channels/<name>")
def publish(name: str) -> tuple[Response, int]:
    """Store one event, or an array of them together, and answer with the id or ids."""
    caller = require_publish(check_name(name))
    if is_own(name):
        raise invalid(
            f"Only the service itself publishes to {name}: use a name that does not begin "
            "with sseflask.",
            status=403,
            code="reserved_channel",
        )
    current_limits().count("publications", account_of(caller.subject))
    publication = read_publication()
    key = scoped(caller.subject, name, given_key(request))
    try:
        ids = channels_of(current_app).publish(
            name, publication.frames, key=key, digest=publication.digest() if key else b""
        )
    except StoreError as error:
        raise store_unavailable() from error
    if isinstance(ids, KeyReused):
        raise key_reused("event")
    response = jsonify({"ids": ids} if publication.several else {"id": ids[0]})
    # The stream that begins with what was published (RFC 9110, section 15.3.2).
    epoch, _, number = ids[0].rpartition("-")
    before = f"{epoch}-{int(number) - 1}"
    # Without url_for, which takes as long as the rest of this function.
    response.headers["Location"] = f"{request.script_root}{request.path}?last_event_id={before}"
    if ids.repeated:
        response.headers[REPLAYED] = "true"
    return response, 201
