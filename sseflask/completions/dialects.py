"""The two APIs of OpenAI that stream completions. No I/O."""

from __future__ import annotations

__all__ = ["CHAT", "RESPONSES", "dialect_of"]

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
