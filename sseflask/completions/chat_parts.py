"""What the chunks of Chat Completions say, in the spellings of all the servers that speak it.

No I/O.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

from sseflask.completions.attachments import Attachments, is_picture
from sseflask.completions.parts import File, Part, Reasoning, Source, Text
from sseflask.completions.tool_calls import ChatCalls

__all__ = ["ChatParts"]

_CallPiece: TypeAlias = dict[str, Any]
"""An item of ``tool_calls`` as it came."""
_Said: TypeAlias = Text | Reasoning | File | Source

# DeepSeek, llama.cpp and LiteLLM say reasoning_content, vLLM and Ollama reasoning, OpenRouter
# reasoning_details beside it: the first of them that says something counts.
_THOUGHTS = ("reasoning_content", "reasoning", "reasoning_text", "thinking", "reasoning_details")
#: Types of parts that are thoughts, beside those that begin with "reasoning".
_THINKING = ("thinking", "summary_text", "thought")
#: Where a part has its text.
_TEXTS = ("text", "content", "value", "thinking", "reasoning", "summary", "refusal", "transcript")
_DEPTH = 6


class ChatParts:
    """Reads the first choice of an answer, chunk by chunk. Not thread-safe, never blocks."""

    def __init__(self) -> None:
        self._calls = ChatCalls()
        self._attachments = Attachments()
        self._streams = False

    def take(self, value: dict[str, Any]) -> Iterator[Part]:
        """What a chunk says."""
        choices = value.get("choices")
        if not isinstance(choices, list):
            return
        if "citations" in value:
            yield from self._attachments.sources(value["citations"])
        for choice in choices:
            if isinstance(choice, dict) and _number(choice) == 0:
                delta = choice.get("delta")
                # Nearly all of them bring a piece of text and nothing else.
                if isinstance(delta, dict) and len(delta) == 1:
                    text = delta.get("content")
                    if isinstance(text, str) and text:
                        self._streams = True
                        yield Text(text)
                        continue
                yield from self._of_choice(choice)

    def _of_choice(self, choice: dict[str, Any]) -> Iterator[Part]:
        told = False
        for said in _said_by(choice.get("delta"), self._attachments):
            told = self._streams = True
            yield from self._part(said)
        if not told and not self._streams:
            # The whole message in the place of pieces, or what older completions have.
            message = choice.get("message")
            message = message if isinstance(message, dict) else _legacy(choice)
            for said in _said_by(message, self._attachments):
                yield from self._part(said)

    def _part(self, said: _Said | _CallPiece) -> Iterator[Part]:
        if isinstance(said, dict):
            yield from self._calls.take(said)
        else:
            yield said

    def rest(self) -> Iterator[Part]:
        """What is held back until the answer's end."""
        yield from self._calls.rest()


def _number(choice: dict[str, Any]) -> int:
    """The index of a choice; 0 where it has none."""
    index = choice.get("index")
    return index if isinstance(index, int) else int(index not in (None, "0", 0.0))


def _legacy(choice: dict[str, Any]) -> dict[str, Any]:
    return {"content": choice.get("text")}


def _said_by(delta: Any, attachments: Attachments) -> Iterator[_Said | _CallPiece]:
    """What a ``delta`` or a ``message`` says by itself; what can't be read is left out."""
    if not isinstance(delta, dict):
        return
    for name in _THOUGHTS:
        if (given := delta.get(name)) and (thought := _plain(given)):
            yield Reasoning(thought)
            break
    content = delta.get("content")
    if isinstance(content, str):
        if content:
            yield Text(content)
    elif content is not None:
        yield from _of_content(content, _DEPTH, attachments)
    if refused := _plain(delta.get("refusal")):
        yield Text(refused)
    if (spoken := delta.get("audio")) and (said := _plain(spoken)):
        yield Text(said)
    yield from attachments.pictures(delta.get("images"))
    yield from attachments.sources(delta.get("annotations"))
    calls = delta.get("tool_calls")
    if isinstance(calls, dict):
        calls = [calls]
    if isinstance(calls, list):
        for call in calls:
            if isinstance(call, dict):
                yield call
    legacy = delta.get("function_call")
    if isinstance(legacy, dict):
        yield {"function": legacy}


def _of_content(content: Any, depth: int, attachments: Attachments) -> Iterator[_Said]:
    """The texts, thoughts and pictures of a content in parts (Mistral), each in its place."""
    if isinstance(content, list):
        for part in content if depth else []:
            yield from _of_content(part, depth - 1, attachments)
        return
    kind = content.get("type") if isinstance(content, dict) else None
    if isinstance(content, dict) and is_picture(content):
        yield from attachments.pictures(content)
        return
    if text := _plain(content, depth):
        thinks = isinstance(kind, str) and (kind.startswith("reasoning") or kind in _THINKING)
        yield Reasoning(text) if thinks else Text(text)


def _plain(value: Any, depth: int = _DEPTH) -> str:
    """The text of a text, a number, a part, or a list of such."""
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, list) and depth:
        return "".join(_plain(each, depth - 1) for each in value)
    if isinstance(value, dict) and depth:
        for name in _TEXTS:
            inner = value.get(name)
            if inner is not None and not isinstance(inner, (int, float)):
                return _plain(inner, depth - 1)
    return ""
