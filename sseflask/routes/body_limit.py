"""How long a request's body may be: longer for a prompt, once it is known who sends it."""

from __future__ import annotations

from flask import Request, request
from werkzeug.formparser import FormDataParser

from sseflask.completions.upstream import current_upstream

__all__ = ["SizedRequest", "take_prompts"]


class SizedRequest(Request):
    """A request whose view can set the limit on its body, also where Flask (3.0) only reads it.

    A form that can't be read is an error, and not an empty one: its view raises ValueError.
    """

    _most: int | None = None

    @property
    def max_content_length(self) -> int | None:
        """Bytes that the body may have."""
        return super().max_content_length if self._most is None else self._most

    @max_content_length.setter
    def max_content_length(self, most: int | None) -> None:
        self._most = most

    def make_form_data_parser(self) -> FormDataParser:
        """As Werkzeug's, which silently gives nothing of a form that is cut off."""
        parser = super().make_form_data_parser()
        parser.silent = False
        return parser


def take_prompts() -> None:
    """Let the current request's body be as long as a prompt may be, beside what others may send.

    To be called once it is known that the caller may ask the upstream: nothing of the body has been
    read before. The demo model's callers are anybody.
    """
    limit, upstream = request.max_content_length, current_upstream()
    if limit is not None and not upstream.demo:
        request.max_content_length = request.max_form_memory_size = limit + upstream.max_prompt
