"""Files of the AI SDK's messages as content parts of OpenAI's Chat Completions."""

from __future__ import annotations

import base64
import binascii
import mimetypes
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

_AUDIO = {
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/wave": "wav",
    "audio/mp3": "mp3",
    "audio/mpeg": "mp3",
}


class UnusablePart(ValueError):
    """A file can't be sent to a model; the message says why."""


def attachment(file: dict[str, Any]) -> dict[str, Any]:
    """An attachment of the AI SDK's version 4 as a part of today's versions."""
    return {
        "type": "file",
        "url": file.get("url"),
        "mediaType": file.get("contentType"),
        "filename": file.get("name"),
    }


def content_of_file(part: dict[str, Any]) -> dict[str, Any]:
    """A file as a content part of a user: an image, audio, text, or any other file.

    Args:
        part: of the type ``file``: ``url``, a data URL or an address that the model's server can
            fetch, ``mediaType`` and ``filename``; or ``providerReference``.

    Raises:
        UnusablePart: OpenAI's API has no such part.
    """
    uploaded = part.get("providerReference")
    if isinstance(uploaded, dict) and uploaded:
        id = uploaded.get("openai") or next(iter(uploaded.values()))
        return {"type": "file", "file": {"file_id": str(id)}}
    url = part.get("url")
    scheme = url.partition(":")[0].lower() if isinstance(url, str) else ""
    if not isinstance(url, str) or scheme not in ("data", "http", "https"):
        raise UnusablePart("its url must be a data URL, or begin with http:// or https://")
    name = part.get("filename")
    kind = _media_type(part, url, scheme)
    if kind.startswith("image/"):
        return {"type": "image_url", "image_url": {"url": url}}
    if scheme != "data":
        raise UnusablePart(
            f"files of the type {kind[:64] or 'unknown'!r} must be in a data URL: only images "
            "can be fetched by the model's server"
        )
    content = _decoded(url)
    if kind.startswith("audio/"):
        if kind not in _AUDIO:
            raise UnusablePart(f"audio must be audio/wav or audio/mpeg, not {kind[:64]!r}")
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


def _decoded(url: str) -> bytes:
    """The content of a data URL (RFC 2397)."""
    head, comma, data = url.partition(",")
    if not comma:
        raise UnusablePart("its url is not a data URL: it has no comma")
    content = unquote_to_bytes(data)
    if not head.lower().endswith(";base64"):
        return content
    try:
        return base64.b64decode(content + b"=" * (-len(content) % 4), validate=True)
    except binascii.Error:
        raise UnusablePart("the base64 in its url can't be decoded") from None


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
