"""The parts of Chat Completions, in the spellings of all servers that speak it. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sseflask.completions.json_values import dict_or_empty, dicts
from sseflask.completions.parts import PICTURES, Attachments, Part, Reasoning, Text
from sseflask.completions.tool_calls import ChatCalls

# DeepSeek, llama.cpp and LiteLLM send reasoning_content, vLLM and Ollama reasoning, OpenRouter
# reasoning_details beside it: the first of them that has text counts.
_REASONING = ("reasoning_content", "reasoning", "reasoning_text", "thinking", "reasoning_details")
#: Types of parts that are reasoning, beside those that begin with "reasoning".
_REASONING_TYPES = ("thinking", "summary_text", "thought")
#: Fields of a part that may have its text.
_TEXTS = ("text", "content", "value", "thinking", "reasoning", "summary", "refusal", "transcript")
_DEPTH = 6


class ChatParts:
    """Reads the first choice of a completion, chunk by chunk. Not thread-safe, never blocks."""

    def __init__(self) -> None:
        self._calls = ChatCalls()
        self._attachments = Attachments()
        self._has_deltas = False

    def feed(self, _event: bytes, chunk: dict[str, Any]) -> Iterator[Part]:
        # Whatever the event's type, which OpenAI's clients and the AI SDK ignore too.
        if "citations" in chunk and isinstance(chunk.get("choices"), list):
            yield from self._attachments.sources(chunk["citations"])
        for choice in dicts(chunk.get("choices")):
            if _index(choice) == 0:
                delta = choice.get("delta")
                # Nearly all of them bring a piece of text and nothing else.
                if isinstance(delta, dict) and len(delta) == 1:
                    text = delta.get("content")
                    if isinstance(text, str) and text:
                        self._has_deltas = True
                        yield Text(text)
                        continue
                yield from self._of_choice(choice)

    def finish(self, _last: dict[str, Any]) -> Iterator[Part]:
        """The parts that are held back until the completion's end."""
        return self._calls.finish()

    def _of_choice(self, choice: dict[str, Any]) -> Iterator[Part]:
        delta = dict_or_empty(choice.get("delta"))
        if delta.get("tool_calls") or delta.get("function_call"):
            self._has_deltas = True  # also if all of it is held back
        for part in self._of_delta(delta):
            self._has_deltas = True
            yield part
        if not self._has_deltas:
            # The message in the place of deltas, or what older completions have.
            message = choice.get("message")
            legacy = {"content": choice.get("text")}
            yield from self._of_delta(message if isinstance(message, dict) else legacy)

    def _of_delta(self, delta: dict[str, Any]) -> Iterator[Part]:
        """The parts of a ``delta`` or a ``message``; what can't be read is left out."""
        for name in _REASONING:
            if (value := delta.get(name)) and (text := _text(value)):
                yield Reasoning(text)
                break
        content = delta.get("content")
        if isinstance(content, str):
            if content:
                yield Text(content)
        elif content is not None:
            yield from self._of_content(content, _DEPTH)
        for name in ("refusal", "audio"):
            if text := _text(delta.get(name)):
                yield Text(text)
        yield from self._attachments.pictures(delta.get("images"))
        yield from self._attachments.sources(delta.get("annotations"))
        calls = delta.get("tool_calls")
        for call in dicts(calls if isinstance(calls, list) else [calls]):
            yield from self._calls.feed(call)
        if function := dict_or_empty(delta.get("function_call")):
            yield from self._calls.feed({"function": function})

    def _of_content(self, content: Any, depth: int) -> Iterator[Part]:
        """The parts of a content that is a list (Mistral), each in its place."""
        if isinstance(content, list):
            for part in content if depth else []:
                yield from self._of_content(part, depth - 1)
        elif isinstance(content, dict) and content.get("type") in PICTURES:
            yield from self._attachments.pictures(content)
        elif text := _text(content, depth):
            kind = content.get("type") if isinstance(content, dict) else None
            reasons = isinstance(kind, str) and (
                kind.startswith("reasoning") or kind in _REASONING_TYPES
            )
            yield Reasoning(text) if reasons else Text(text)


def _index(choice: dict[str, Any]) -> int:
    index = choice.get("index")
    return index if isinstance(index, int) else int(index not in (None, "0", 0.0))


def _text(value: Any, depth: int = _DEPTH) -> str:
    """The text in a value: a text, a number, a part, or a list of these."""
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, list) and depth:
        return "".join(_text(each, depth - 1) for each in value)
    if isinstance(value, dict) and depth:
        for name in _TEXTS:
            inner = value.get(name)
            if inner is not None and not isinstance(inner, (int, float)):
                return _text(inner, depth - 1)
    return ""
