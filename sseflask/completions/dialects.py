"""The two APIs of OpenAI that stream completions. No I/O."""

from __future__ import annotations

from collections.abc import Iterable

from sseflask.completions.chat_stream import ChatParser
from sseflask.completions.response_stream import ResponseParser
from sseflask.completions.stream_parser import StreamParser

__all__ = ["CHAT", "RESPONSES", "dialect_of", "stream_parser"]

#: The name of Chat Completions, as it is stored.
CHAT = "chat"
#: The name of the Responses API.
RESPONSES = "responses"

_BY_PATH = {"/chat/completions": CHAT, "/responses": RESPONSES}


def dialect_of(path: str) -> str:
    """The name of the API that has this path, such as ``/chat/completions``.

    Raises:
        ValueError: no API that can be relayed has it.
    """
    try:
        return _BY_PATH[path]
    except KeyError:
        raise ValueError(f"no completions are streamed at {path}") from None


def stream_parser(dialect: str, secrets: Iterable[str], choices: int = 1) -> StreamParser:
    """Make the parser of a stream.

    Args:
        dialect: the name of its API.
        secrets: values to mask in errors.
        choices: how many choices the request asks for.
    """
    if dialect == RESPONSES:
        return ResponseParser(tuple(secrets))
    return ChatParser(tuple(secrets), choices)
