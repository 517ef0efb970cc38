"""The fields of a form: the time to parse them is bounded, and other greenlets get their turns."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote_to_bytes

from flask import current_app, request

from sseflask.errors import Failure

_URLENCODED = "application/x-www-form-urlencoded"
#: The media types of forms.
FORMS = (_URLENCODED, "multipart/form-data")

#: Bytes that are decoded before others get a turn.
_PIECE = 1 << 14
#: The most bytes of a part's head, and the most lines and parameters.
_MOST_HEAD, _MOST_LINES = 4096, 32
_BLANK_LINE = re.compile(rb"\r\n\r\n|\r\r|\n\n")
_LINE = re.compile(rb"\r\n?|\n|;")


def form_fields(body: bytes, pause: Callable[[], None]) -> list[tuple[str, Any]]:
    """The names and values of the current request's form; a file is Werkzeug's object, closed.

    For ``pause`` see `sseflask.web.bounded_json.bounded_json`.

    Raises:
        Failure: 400 or 413, it is too large.
        ValueError: it can't be read.
        werkzeug.exceptions.RequestEntityTooLarge: it has too many parts.
    """
    most = current_app.config["MAX_CONTENT_LENGTH"]
    if most is not None and len(body) > most:
        raise Failure(
            f"A form may have {most} bytes (SSEFLASK_MAX_BODY): send a longer prompt as JSON "
            "(application/json), which this server reads a hundred times as fast.",
            status=413,
            type="invalid_request_error",
            code="form_too_long",
        )
    if request.mimetype == _URLENCODED:
        return list(_decoded(body, pause))
    _check_heads(body)
    parser = request.make_form_data_parser()
    _, form, files = parser.parse(
        _Paced(body, pause), request.mimetype, len(body), request.mimetype_params
    )
    fields: list[tuple[str, Any]] = [*form.items(multi=True), *files.items(multi=True)]
    for _, file in files.items(multi=True):
        file.close()
    return fields


def _decoded(body: bytes, pause: Callable[[], None]) -> Iterator[tuple[str, str]]:
    most = request.max_form_parts
    if most is not None and body.count(b"&") >= most:
        raise _invalid(f"The form has more than {most} fields.")
    for field in body.split(b"&"):
        if field:
            name, _, value = field.partition(b"=")
            yield _text(name, pause), _text(value, pause)


def _text(encoded: bytes, pause: Callable[[], None]) -> str:
    """By the URL standard (application/x-www-form-urlencoded parsing)."""
    decoded, at = [], 0
    while at < len(encoded):
        end = at + _PIECE
        if end < len(encoded):
            cut = encoded.find(b"%", end - 2, end)  # not within an escape
            end = end if cut < 0 else cut
        decoded.append(unquote_to_bytes(encoded[at:end].replace(b"+", b" ")))
        at = end
        pause()
    return b"".join(decoded).decode(errors="replace")


def _check_heads(body: bytes) -> None:
    """Refuse long heads of parts, which Werkzeug parses line by line."""
    boundary = request.mimetype_params.get("boundary", "").encode("latin-1", "replace")
    most = request.max_form_parts or 1000
    for part in body.split(b"--" + boundary, most + 1)[1:] if boundary else ():
        found = _BLANK_LINE.search(part, 0, _MOST_HEAD)
        head = part[: _MOST_HEAD if found is None else found.start()]
        if (found is None and len(part) > _MOST_HEAD) or len(_LINE.findall(head)) > _MOST_LINES:
            raise _invalid(
                f"The head of a part has more than {_MOST_HEAD} bytes, or more than {_MOST_LINES} "
                "lines and parameters."
            )


def _invalid(message: str) -> Failure:
    return Failure(message, status=400, type="invalid_request_error", code="invalid_body")


class _Paced(io.BytesIO):
    """A body that is read in pieces, with a pause between them."""

    def __init__(self, body: bytes, pause: Callable[[], None]) -> None:
        super().__init__(body)
        self._pause = pause

    def read(self, size: int | None = -1, /) -> bytes:
        self._pause()
        return super().read(_PIECE if size is None or size < 0 else min(size, _PIECE))
