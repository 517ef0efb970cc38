"""The parameters of a request: query, form and JSON as one set."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Iterable
from typing import Annotated, Any, TypeVar

from flask import Request, request
from pydantic import BaseModel, BeforeValidator, ValidationError
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from sseflask.errors import Failure, invalid
from sseflask.flask_context import current_request
from sseflask.loop.callbacks import TimeSlice
from sseflask.web.bounded_json import bounded_json
from sseflask.web.cursor import PARAMETER, is_cursor, latest
from sseflask.web.forms import FORMS, form_fields

Model = TypeVar("Model", bound=BaseModel)

_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,18}\Z", re.ASCII)
_LARGE = 10**18
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def _whole_number(value: Any) -> Any:
    if isinstance(value, str) and _WHOLE_NUMBER.match(value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    # To JSON, and to JSON Schema, 3.0 and 3 are the same number (RFC 8259, section 6).
    if isinstance(value, float) and value.is_integer() and abs(value) < _LARGE:
        return int(value)
    raise ValueError("it must be a whole number in digits")


def check_seconds(value: Any) -> float:
    """A finite number of seconds, in JSON or as text; or a ValueError."""
    # float() accepts "1_0", "nan" and digits of other scripts too, and its error quotes the value.
    if isinstance(value, str) and value.isascii() and "_" not in value:
        with contextlib.suppress(ValueError):
            value = float(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return max(-_LARGE, min(value, _LARGE))  # a float, and still beyond any limit
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise ValueError("it must be a number of seconds")


def _text(value: Any) -> Any:
    if isinstance(value, str) and _SURROGATE.search(value):
        raise ValueError("it must be text that UTF-8 can carry: it has a lone surrogate")
    return value


#: A whole number, in JSON or in digits; neither true nor "1.0" nor 1_000.
WholeNumber = Annotated[int, BeforeValidator(_whole_number)]
#: A finite number of seconds, in JSON or as text.
Seconds = Annotated[float, BeforeValidator(check_seconds)]
#: Text that UTF-8 can carry.
Text = Annotated[str, BeforeValidator(_text)]


def read_parameters(model: type[Model], as_json: Iterable[str] = ()) -> Model:
    """The request's parameters from query, form and JSON, checked.

    Blocks until the body has been read. Parameters that are not in the model are ignored.
    A cursor may have any of its spellings, see `sseflask.web.cursor`.

    Args:
        as_json: the names of parameters that may be JSON as text; the model gets their values, and
            ``None`` for malformed JSON.

    Raises:
        Failure: 400 with ``param`` set for a value that does not fit or a parameter given twice;
            413 for JSON with too many values; 415 for another media type; see also `read_body`.
    """
    return _checked(model, [*request.args.items(multi=True), *_body()], as_json)


def read_query(model: type[Model]) -> Model:
    """The request's parameters from the query alone, checked; see `read_parameters`."""
    return _checked(model, request.args.items(multi=True))


def _checked(
    model: type[Model], fields: Iterable[tuple[str, Any]], as_json: Iterable[str] = ()
) -> Model:
    values: dict[str, Any] = {}
    for name, value in fields:
        if (PARAMETER if is_cursor(name) else name) not in model.model_fields:
            continue
        if isinstance(value, FileStorage):
            raise invalid(
                f"The parameter {name} is sent as a file: send its text as an ordinary field "
                f"(curl: -F '{name}=<FILE', with < in place of @).",
                param=name,
            )
        if name in values:
            raise invalid(
                f"The parameter {name} is given more than once: send it once, in the query, "
                "in a form or in a JSON object.",
                param=name,
                code="duplicate_parameter",
            )
        values[name] = value
    cursors = [(name, values.pop(name)) for name in list(values) if is_cursor(name)]
    if (cursor := latest(cursors)) is not None:
        values[PARAMETER] = cursor
    for name in as_json:
        if isinstance(values.get(name), str):
            try:
                values[name] = bounded_json(values[name], TimeSlice())
            except (ValueError, RecursionError):
                values[name] = None
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
        name = str(problem["loc"][0])
        reason = problem["msg"].removeprefix("Value error, ")
        raise invalid(
            f"The parameter {name} is not valid: {reason[:1].lower()}{reason[1:]}.", param=name
        ) from None


def read_body() -> bytes:
    """The request's body. Blocks until all of it has come.

    Raises:
        Failure: 400, it can't be read; 415 or 501, it is compressed; 415, it is not in UTF-8.
        werkzeug.exceptions.RequestEntityTooLarge: it exceeds ``MAX_CONTENT_LENGTH``.
    """
    request = current_request()
    # Cached, so that a form is parsed from it.
    try:
        body = request.get_data(cache=True)
    except HTTPException:
        raise
    except Exception as error:
        # Each server raises another exception for a malformed chunked body.
        raise invalid("The request's body can't be read.", code="invalid_body") from error
    limit = request.max_content_length
    if limit is not None and request.content_length is None and len(body) >= limit:
        # Werkzeug silently cuts a chunked body at the limit.
        raise RequestEntityTooLarge
    if body:
        _check_coding(request, body)
    return body


def _check_coding(request: Request, body: bytes) -> None:
    """Refuse encoded bodies, which would be stored or passed on as they are.

    RFC 9110, sections 8.3.2, 8.4 and 12.5.3; RFC 9112, section 6.1: gunicorn only decodes chunks.
    """
    transfer = request.headers.get("Transfer-Encoding", "").replace(" ", "").lower()
    if transfer not in ("", "chunked"):
        raise invalid(
            f"The body has a transfer coding ({transfer[:40]}) that this server does not support: "
            "send it without Transfer-Encoding, or chunked only.",
            status=501,
            code="unsupported_transfer_coding",
        )
    coding = request.headers.get("Content-Encoding", "").strip().lower()
    charset = request.mimetype_params.get("charset", "utf-8").strip().lower()
    if coding not in ("", "identity"):
        problem = (
            f"The body has a coding ({coding[:40]}) that this server does not support: send it "
            "without Content-Encoding."
        )
    elif charset not in ("utf-8", "utf8") and not (
        body.isascii() and b"\0" not in body  # the same in all but UTF-16 and UTF-32
    ):
        problem = f"The body is declared to be in {charset[:40]}: send it in UTF-8."
    else:
        return
    raise Failure(
        problem,
        status=415,
        type="invalid_request_error",
        code="unsupported_media_type",
        headers={"Accept-Encoding": "identity"} if coding not in ("", "identity") else {},
    )


def is_json(kind: str) -> bool:
    return kind == "application/json" or kind.endswith("+json")


def _body() -> Iterable[tuple[str, Any]]:
    body = read_body()
    kind = request.mimetype
    if not body:
        return ()
    if kind in FORMS:
        return _form(body)
    if is_json(kind):
        return _json_object(body)
    raise invalid(
        "The body's media type is not supported: send parameters in the query, as a form "
        "(application/x-www-form-urlencoded) or as a JSON object (application/json).",
        status=415,
        code="unsupported_media_type",
    )


def _form(body: bytes) -> Iterable[tuple[str, Any]]:
    try:
        fields = form_fields(body, TimeSlice())
        if any(name is None for name, _ in fields):
            raise ValueError("a part without a name")
    except HTTPException:
        raise
    except ValueError as error:
        raise invalid(
            "The form can't be read: it must be complete and fit its Content-Type, boundary "
            "included.",
            code="invalid_body",
        ) from error
    if len(fields) == 1 and fields[0][0].lstrip().startswith("{"):
        raise invalid(
            "The body looks like JSON but is declared a form: add the header "
            "Content-Type: application/json.",
            code="invalid_json",
        )
    return fields


def json_value(
    body: bytes,
    pause: Callable[[], None] | None = None,
    pairs: Callable[[list[tuple[str, Any]]], Any] | None = None,
) -> Any:
    """The value of a JSON body, see `bounded_json`; 400 if it is not JSON."""
    try:
        return bounded_json(body, pause or TimeSlice(), pairs)
    except (ValueError, RecursionError):
        raise invalid("The body is not valid JSON in UTF-8.", code="invalid_json") from None


def _json_object(body: bytes) -> Iterable[tuple[str, Any]]:
    outermost: list[tuple[str, Any]] = []

    def keep_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        # Called from the inside out: the last call is the outermost object's.
        outermost[:] = pairs
        return dict(pairs)

    value = json_value(body, pairs=keep_pairs)
    if not isinstance(value, dict):
        raise invalid(
            'The JSON body must be an object, for example {"count": 3}.', code="invalid_json"
        )
    return outermost
