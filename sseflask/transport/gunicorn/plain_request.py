"""Plain HTTP/1 requests, read in one step, and what the application gets of them.

gunicorn's parser has many rules, for many kinds of requests. Most requests are plain: their head
comes in one piece, and each line of it is what no rule is about. They are read here by two regular
expressions. Whatever else comes is left to gunicorn, which also refuses what is wrong: nothing is
accepted here that gunicorn would refuse or read otherwise, on the lowest and the newest version
(`tests/unit/transport/gunicorn/test_plain_request.py`).
"""

from __future__ import annotations

import os
import re
import sys
from functools import lru_cache
from typing import Any

from gunicorn.http.body import Body, LengthReader
from gunicorn.http.message import Request
from gunicorn.http.unreader import Unreader
from gunicorn.http.wsgi import (  # type: ignore[attr-defined]  # one is private
    Response,
    WSGIErrorsWrapper,
    _make_early_hints_callback,
    base_environ,
    create,
)
from gunicorn.util import unquote_to_wsgi_str

#: A target of one path, without a fragment. Names of headers without an underscore: in the
#: environment they would be those with a hyphen. Short names: some are kept. No folded lines, no
#: control characters.
_FIELD = r"[-!#$%&'*+.^`|~0-9A-Za-z]{1,64}:[\t -~\x80-\xff]*\r\n"
_HEAD = re.compile(
    r"(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) (/(?!/)[!\"$-~]*) HTTP/1\.([01])\r\n"
    rf"((?:{_FIELD})*)\r\n"
)
_FIELDS = re.compile(r"([^:\r\n]+):[\t ]*([^\r\n]*)\r\n")

#: Headers that may come only once, and those that say something of a body.
_SINGLE = ("HOST", "CONTENT-TYPE")
_OF_A_BODY = frozenset(("CONTENT-LENGTH", "TRANSFER-ENCODING"))


#: Headers whose names in the environment do not begin with HTTP_.
_KEYS = {"CONTENT-TYPE": "CONTENT_TYPE", "CONTENT-LENGTH": "CONTENT_LENGTH"}

# What requests have in common is one object for all of them: a stream keeps its request.

_VERSIONS = {minor: (1, int(minor)) for minor in "01"}

#: What is read where there is no body.
_NO_BODY = Body(LengthReader(Unreader(), 0))


@lru_cache(maxsize=256)
def _upper(name: str) -> str:
    return name.upper()


@lru_cache(maxsize=256)
def _key(name: str) -> str:
    """The name of a header in the environment."""
    return _KEYS.get(name) or "HTTP_" + name.replace("-", "_")


@lru_cache(maxsize=256)
def _port(number: int) -> str:
    return str(number)


class PlainRequest(Request):
    """gunicorn's request, whose head is read in one step if it is plain.

    Attributes:
        plain: whether it has been.
    """

    plain = False
    _has_body = True

    def parse(self, unreader: Any) -> bytes:
        """Read the head; give what has come behind it."""
        data: bytes = unreader.read()
        if not data:
            raise StopIteration  # as gunicorn's
        end = data.find(b"\r\n\r\n") + 4
        if end > 3 and self._read_head(data[:end].decode("latin-1")):
            return data[end:]
        unreader.unread(data)
        rest: bytes = super().parse(unreader)
        return rest

    def _read_head(self, head: str) -> bool:
        match = _HEAD.fullmatch(head)
        if match is None:
            return False
        method, uri, minor, fields = match.groups()
        limit = self.limit_request_line
        if match.start(4) - 2 > limit > 0 or len(fields) > self.limit_request_field_size:
            return False  # each field is shorter than all
        headers = [(_upper(name), value.rstrip("\t ")) for name, value in _FIELDS.findall(fields)]
        names = [name for name, _ in headers]
        if (
            len(names) > self.limit_request_fields
            or "EXPECT" in names
            or [name for name in _SINGLE if names.count(name) > 1]
            or not self.cfg.secure_scheme_headers.keys().isdisjoint(names)
        ):
            return False
        self.method, self.uri, self.headers = sys.intern(method), uri, headers
        self.path, _, self.query = uri.partition("?")
        self.fragment = ""
        self.version = _VERSIONS[minor]
        self.plain = True
        self._has_body = not _OF_A_BODY.isdisjoint(names)
        return True

    def set_body_reader(self) -> None:
        """Prepare to read the body. gunicorn's own goes through the headers for it."""
        if self._has_body:
            super().set_body_reader()
        else:
            self.body = _NO_BODY


class _Errors(WSGIErrorsWrapper):
    """gunicorn's ``wsgi.errors``, one for all requests. Log files may be reopened in between."""

    def __init__(self, cfg: Any) -> None:
        self._cfg = cfg

    @property
    def streams(self) -> Any:  # type: ignore[override]  # read only, as it is by gunicorn
        """Where it is written to now."""
        return WSGIErrorsWrapper(self._cfg).streams

    def close(self) -> None:
        """Do nothing: the other requests need it."""


class Environments:
    """Makes the responses and WSGI environments of a worker's plain requests.

    They are what `gunicorn.http.wsgi.create` makes, which does each request anew what is the same
    for all.
    """

    def __init__(self, cfg: Any) -> None:
        self._cfg = cfg
        self._no_hook = cfg.settings["pre_request"].default
        self._has_prefix = bool(os.environ.get("SCRIPT_NAME"))
        self._same = {
            **base_environ(cfg),
            "wsgi.errors": _Errors(cfg),
            "wsgi.multithread": True,
            "SCRIPT_NAME": "",
        }

    def create(
        self, request: PlainRequest, client: Any, address: Any, server: Any
    ) -> tuple[Response, Any]:
        """Give the response to a request, and its environment."""
        if not self._fits(request, address, server):
            response, environ = create(request, client, address, server, self._cfg)
            environ["wsgi.multithread"] = True
            return response, environ
        response = Response(request, client, self._cfg)
        path: Any = request.path
        environ = {
            **self._same,
            "wsgi.input": request.body,
            "gunicorn.socket": client,
            "REQUEST_METHOD": request.method,
            "QUERY_STRING": request.query,
            "RAW_URI": request.uri,
            "SERVER_PROTOCOL": "HTTP/1.1" if request.version == (1, 1) else "HTTP/1.0",
            "wsgi.url_scheme": request.scheme,
            "REMOTE_ADDR": address[0],
            "REMOTE_PORT": str(address[1]),
            "SERVER_NAME": server[0],
            "SERVER_PORT": _port(server[1]),
            "PATH_INFO": unquote_to_wsgi_str(path) if "%" in path else path,
            "wsgi.early_hints": _make_early_hints_callback(request, client, response),
        }
        for name, value in request.headers:
            key = _key(name)
            if key in environ:
                environ[key] += "," + value
            else:
                environ[key] = value
        return response, environ

    def _fits(self, request: PlainRequest, address: Any, server: Any) -> bool:
        """Whether nothing is special: a prefix, a socket that is no TCP, or a hook's changes."""
        return (
            request.plain
            and type(address) is tuple
            and type(server) is tuple
            and not self._has_prefix
            and not request.proxy_protocol_info
            and self._cfg.pre_request is self._no_hook
        )
