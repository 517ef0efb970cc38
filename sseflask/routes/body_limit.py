"""The limit of a request's body: higher for a prompt, after its sender was checked."""

from __future__ import annotations

from flask import Request, request
from werkzeug.formparser import FormDataParser

from sseflask.completions.upstream import current_upstream


class SizedRequest(Request):
    """A request whose view can set the limit of its body, which Flask 3.0 only reads.

    A malformed form raises ValueError in its view, and is not read as an empty one.
    """

    _most: int | None = None

    @property
    def max_content_length(self) -> int | None:
        """The most bytes of the body."""
        return super().max_content_length if self._most is None else self._most

    @max_content_length.setter
    def max_content_length(self, most: int | None) -> None:
        self._most = most

    def make_form_data_parser(self) -> FormDataParser:
        """As Werkzeug's, which silently reads a truncated form as an empty one."""
        parser = super().make_form_data_parser()
        parser.silent = False
        return parser


def take_prompts() -> None:
    """Raise the limit of the current request's body by the longest prompt.

    To be called when the sender's right is checked: nothing of the body has been read before. The
    demo model's senders have no right, so their limit stays.
    """
    limit, upstream = request.max_content_length, current_upstream()
    if limit is not None and not upstream.demo:
        request.max_content_length = request.max_form_memory_size = limit + upstream.max_prompt
