"""Values as JSON, by one rule for yielded values, events and published data."""

from __future__ import annotations

import functools
import importlib
import json
from collections.abc import Callable
from typing import Any

from sseflask.errors import EventError

__all__ = ["COMPACT", "json_text"]

_SEPARATORS = (",", ":")


class _Compact:
    def dumps(self, value: Any) -> str:
        return _compact_encoder()(value)


#: A provider that writes no spaces, letters unescaped and keys in their order. It converts the same
#: types as Flask's provider (dates, decimals, UUIDs, dataclasses).
COMPACT = _Compact()


def json_text(value: Any, provider: Any = None) -> str:
    """A value as JSON text.

    The application's JSON provider (``app.json``) writes it, as it writes responses. Outside an
    application context `COMPACT` writes it.

    Args:
        value: anything.
        provider: a `flask.json.provider.JSONProvider`, or another with ``dumps``; by default the
            application's.

    Raises:
        EventError: it can't be written, or has a NaN or Infinity, which are not JSON (RFC 8259,
            section 6): a browser's ``JSON.parse`` throws at them.
    """
    try:
        text = _writer(provider)(value)
        if not isinstance(text, str):
            raise TypeError(f"app.json.dumps gave {type(text).__name__}, not str")
        if "NaN" in text or "Infinity" in text:  # perhaps within a string
            json.loads(text, parse_constant=_refuse)
    except Exception as error:  # an application's provider may raise anything
        reason = str(error) or "it is nested too deeply"
        raise EventError(
            f"data of type {type(value).__name__} is neither text nor JSON: {reason}"
        ) from error
    if not text.isascii():
        # They end a line if JSON is read as JavaScript.
        text = text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return text


def _writer(provider: Any) -> Callable[[Any], str]:
    if provider is None:
        flask = _module("flask")
        if not flask.has_app_context():
            return _compact_encoder()
        provider = flask.current_app.json
    dumps: Callable[..., str] = provider.dumps
    if (
        getattr(type(provider), "dumps", None)
        is _module("flask.json.provider").DefaultJSONProvider.dumps
    ):
        # As Flask does for responses.
        return functools.partial(dumps, separators=_SEPARATORS)
    return dumps


@functools.cache
def _module(name: str) -> Any:
    # At the first value: the worker class imports events before gevent has patched the standard
    # library, and Flask must not be imported there.
    return importlib.import_module(name)


@functools.cache
def _compact_encoder() -> Callable[[Any], str]:
    convert = _module("flask.json.provider").DefaultJSONProvider.default
    # Made once: json.dumps makes a new encoder at each call with options.
    return json.JSONEncoder(ensure_ascii=False, separators=_SEPARATORS, default=convert).encode


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON; send null or a text instead")
