"""What is logged of streams, noted under the tag of the request in its query."""

from __future__ import annotations

import json
import logging

from flask import Blueprint, request
from flask.typing import ResponseReturnValue

from sseflask.logs import request_ids
from tests.live.kit.notes import mark, tag

blueprint = Blueprint("accounts", __name__)

FIELDS = (
    *("request_id", "kind", "method", "path", "peer"),
    *("seconds", "events", "bytes", "reason"),
)


class Noting(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        fields = {name: vars(record)[name] for name in FIELDS if name in vars(record)}
        mark(
            f"{fields['request_id']}.account",
            json.dumps({"message": record.getMessage(), **fields}),
        )


log = logging.getLogger("sseflask.streams")
log.addHandler(Noting())


@blueprint.before_app_request
def name_the_request() -> None:
    """What a proxy's X-Request-Id would become."""
    request.environ[request_ids.KEY] = tag()


@blueprint.post("/accounts")
def accounts() -> ResponseReturnValue:
    """Switch the log of streams on, or off again."""
    log.setLevel(logging.INFO if "on" in request.args else logging.WARNING)
    return {"on": "on" in request.args}
