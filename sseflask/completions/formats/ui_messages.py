"""The AI SDK's UI messages as messages of OpenAI's Chat Completions. No I/O.

The conversion of the parts follows the AI SDK's ``convertToModelMessages`` (version 7) and its
provider for OpenAI-compatible servers. A call whose result never came is left out, as with its
``ignoreIncompleteToolCalls``: servers refuse a call without a result, in every later turn too.
"""

from __future__ import annotations

import base64
import binascii
import json
import mimetypes
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from sseflask.web.bounded_json import bounded_json

#: Parts for the user interface alone, or that a model does not accept.
_IGNORED = ("reasoning", "reasoning-file", "source-url", "source-document", "custom", "source")
_DENIED = "Tool call execution denied."
_AUDIO = {
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/wave": "wav",
    "audio/mp3": "mp3",
    "audio/mpeg": "mp3",
}


class UnusableMessage(ValueError):
    """A message can't be sent to a model.

    Args:
        path: the part at fault, such as ``messages[1].parts[0]``.
        reason: what is wrong with it, and what would be right.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


def is_ui_message(message: dict[str, Any]) -> bool:
    """Whether a message is the AI SDK's: only those have parts."""
    return isinstance(message.get("parts"), list)


def openai_messages(
    message: dict[str, Any], path: str, pause: Callable[[], None] = lambda: None
) -> list[dict[str, Any]]:
    """The messages to send for one of the AI SDK's, in order; none for one without content.

    Args:
        path: its name in an error, such as ``messages[1]``.
        pause: called after each millisecond or so of work, to give way.

    Raises:
        Failure: 413, the arguments of a call have too many JSON values.
        UnusableMessage: a part can't be sent; the path names it.
    """
    role = message.get("role")
    if role in ("system", "developer"):
        text = _text(_checked(message["parts"], path))
        messages = [{"role": role, "content": text}] if text else []
    elif role == "user":
        messages = _of_user(_checked(message["parts"], path))
        files = message.get("experimental_attachments")  # of version 4
        if isinstance(files, list):
            messages = _with_files(messages, files, f"{path}.experimental_attachments")
    elif role == "assistant":
        messages = _of_assistant(_checked(message["parts"], path), pause)
    else:
        raise UnusableMessage(
            f"{path}.role", "a message with parts is of system, developer, user or assistant"
        )
    if not messages and not message["parts"] and message.get("content"):
        return [{"role": role, "content": message["content"]}]
    return messages


_Parts = list[tuple[str, dict[str, Any]]]


def _checked(parts: list[Any], path: str) -> _Parts:
    """The parts for a model, each with its path."""
    checked: _Parts = []
    for number, part in enumerate(parts):
        where = f"{path}.parts[{number}]"
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(kind, str):
            raise UnusableMessage(where, "a part is a JSON object with a type")
        if kind in _IGNORED or kind.startswith("data-"):
            continue
        if kind == "text" and not isinstance(part.get("text"), str):
            raise UnusableMessage(f"{where}.text", "it must be text")
        if kind not in ("text", "file", "step-start", "steering-message") and not _is_call(kind):
            raise UnusableMessage(
                where, f"parts of the type {kind[:64]!r} can't be sent to a model"
            )
        checked.append((where, part))
    return checked


def _is_call(kind: str) -> bool:
    return kind.startswith("tool-") or kind == "dynamic-tool"


def _text(parts: _Parts) -> str:
    return "".join(part["text"] for _, part in parts if part["type"] == "text")


def _of_user(parts: _Parts) -> list[dict[str, Any]]:
    content = []
    for where, part in parts:
        if part["type"] == "text" and part["text"]:
            content.append({"type": "text", "text": part["text"]})
        elif part["type"] == "file":
            content.append(_file(where, part))
    if not content:
        return []
    # Text alone is sent as text, which every server takes.
    if all(each["type"] == "text" for each in content):
        return [{"role": "user", "content": "".join(each["text"] for each in content)}]
    return [{"role": "user", "content": content}]


def _with_files(
    messages: list[dict[str, Any]], files: list[Any], path: str
) -> list[dict[str, Any]]:
    content = []
    for number, each in enumerate(files):
        if isinstance(each, dict):
            file = {"url": each.get("url"), "mediaType": each.get("contentType")}
            content.append(_file(f"{path}[{number}]", {**file, "filename": each.get("name")}))
    if not content:
        return messages
    before = messages[0]["content"] if messages else []
    if isinstance(before, str):
        before = [{"type": "text", "text": before}]
    return [{"role": "user", "content": [*before, *content]}]


def _file(where: str, part: dict[str, Any]) -> dict[str, Any]:
    """A file as a content part of a user: an image, audio, text, or any other file.

    Its ``url`` is a data URL, or an address that the model's server can fetch.
    """
    uploaded = part.get("providerReference")
    if isinstance(uploaded, dict) and uploaded:
        id = uploaded.get("openai") or next(iter(uploaded.values()))
        return {"type": "file", "file": {"file_id": str(id)}}
    url = part.get("url")
    scheme = url.partition(":")[0].lower() if isinstance(url, str) else ""
    if not isinstance(url, str) or scheme not in ("data", "http", "https"):
        raise UnusableMessage(
            where, "its url must be a data URL, or begin with http:// or https://"
        )
    name = part.get("filename")
    kind = _media_type(part, url, scheme)
    if kind.startswith("image/"):
        return {"type": "image_url", "image_url": {"url": url}}
    if scheme != "data":
        raise UnusableMessage(
            where,
            f"files of the type {kind[:64] or 'unknown'!r} must be in a data URL: only images "
            "can be fetched by the model's server",
        )
    content = _decoded(where, url)
    if kind.startswith("audio/"):
        if kind not in _AUDIO:
            raise UnusableMessage(
                where, f"audio must be audio/wav or audio/mpeg, not {kind[:64]!r}"
            )
        audio = {"data": _base64(content), "format": _AUDIO[kind]}
        return {"type": "input_audio", "input_audio": audio}
    if kind.startswith("text/"):
        return {"type": "text", "text": content.decode(errors="replace")}
    if not isinstance(name, str) or not name:
        name = f"document{mimetypes.guess_extension(kind) or ''}"
    data = f"data:{kind};base64,{_base64(content)}"
    return {"type": "file", "file": {"filename": name, "file_data": data}}


def _media_type(part: dict[str, Any], url: str, scheme: str) -> str:
    kind = part.get("mediaType") or part.get("mimeType")
    if isinstance(kind, str) and kind:
        return kind.partition(";")[0].strip().lower()
    if scheme == "data":
        return url[5:].partition(",")[0].partition(";")[0].lower() or "text/plain"
    return mimetypes.guess_type(urlsplit(url).path)[0] or ""


def _decoded(where: str, url: str) -> bytes:
    """The content of a data URL (RFC 2397)."""
    head, comma, data = url.partition(",")
    if not comma:
        raise UnusableMessage(where, "its url is not a data URL: it has no comma")
    content = unquote_to_bytes(data)
    if not head.lower().endswith(";base64"):
        return content
    try:
        return base64.b64decode(content + b"=" * (-len(content) % 4), validate=True)
    except binascii.Error:
        raise UnusableMessage(where, "the base64 in its url can't be decoded") from None


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _of_assistant(parts: _Parts, pause: Callable[[], None]) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    for block in _blocks(parts):
        if block[0][1]["type"] == "steering-message":  # the user's, sent meanwhile
            where, part = block[0]
            inner = part.get("parts")
            messages += _of_user(_checked(inner if isinstance(inner, list) else [], where))
            continue
        calls = [
            call
            for where, part in block
            if _is_call(part["type"]) and (call := _call(where, part, pause)) is not None
        ]
        text = _text(block)
        if calls:
            made = [call for call, _ in calls]
            messages.append({"role": "assistant", "content": text or None, "tool_calls": made})
            messages += [
                {"role": "tool", "tool_call_id": call["id"], "content": result}
                for call, result in calls
            ]
        elif text:
            messages.append({"role": "assistant", "content": text})
    return messages


def _blocks(parts: Iterable[tuple[str, dict[str, Any]]]) -> Iterator[_Parts]:
    """The parts of each step: its calls have results before the next step begins."""
    block: _Parts = []
    for where, part in parts:
        if part["type"] in ("step-start", "steering-message"):
            if block:
                yield block
            block = []
            if part["type"] == "steering-message":
                yield [(where, part)]
        else:
            block.append((where, part))
    if block:
        yield block


def _call(
    where: str, part: dict[str, Any], pause: Callable[[], None]
) -> tuple[dict[str, Any], str] | None:
    """A call and its result; ``None`` if it has none."""
    kind = part["type"]
    if kind == "tool-invocation":
        part = _since_version_4(where, part)
    result, given = _result(part), part.get("input")
    if result is None:
        return None
    if given is None:
        given = part.get("rawInput")
    name = part.get("toolName") if part["type"] == "dynamic-tool" else kind.removeprefix("tool-")
    id = part.get("toolCallId")
    for field, value in (("toolName", name), ("toolCallId", id)):
        if not isinstance(value, str) or not value:
            raise UnusableMessage(f"{where}.{field}", "it must be text that is not empty")
    function = {"name": name, "arguments": _arguments(given, pause)}
    return {"id": id, "type": "function", "function": function}, result


def _since_version_4(where: str, part: dict[str, Any]) -> dict[str, Any]:
    """A call of the AI SDK's version 4 as a part of today's versions."""
    call = part.get("toolInvocation")
    if not isinstance(call, dict):
        raise UnusableMessage(f"{where}.toolInvocation", "it must be a JSON object")
    return {
        "type": "dynamic-tool",
        "toolName": call.get("toolName"),
        "toolCallId": call.get("toolCallId"),
        "state": "output-available" if call.get("state") == "result" else "input-available",
        "input": call.get("args"),
        "output": call.get("result"),
    }


def _result(part: dict[str, Any]) -> str | None:
    """The result of a call for the model; ``None`` if there is none, or none yet."""
    state, approval = part.get("state"), part.get("approval")
    reason = approval.get("reason") if isinstance(approval, dict) else None
    if state == "output-available" and part.get("preliminary") is not True:
        return _text_of(part.get("output"))
    if state == "output-error":
        return _text_of(part.get("errorText"))
    denied = isinstance(approval, dict) and approval.get("approved") is False
    if state == "output-denied" or (state == "approval-responded" and denied):
        return reason if isinstance(reason, str) else _DENIED
    return None


def _text_of(value: Any) -> str:
    return value if isinstance(value, str) else _json(value)


def _arguments(value: Any, pause: Callable[[], None]) -> str:
    """A call's arguments as JSON text; malformed ones of a model as a JSON string."""
    if value is None:
        return "{}"
    if isinstance(value, str):
        try:
            bounded_json(value, pause)
        except (ValueError, RecursionError):
            return _json(value)
        return value
    return _json(value)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
