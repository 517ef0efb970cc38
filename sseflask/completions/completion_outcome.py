"""How a completion ended: its upstream's own last frame, and the tokens that it took. No I/O.

The tokens are what the upstream says, or else counted here. They are noted while the frames pass:
each frame is stored with what is known up to it. So the usage is there also if another process ends
the run of a process that has died.
"""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass
from typing import Any

from sseflask.completions.frame_splitter import message
from sseflask.completions.json_values import dict_or_empty
from sseflask.completions.upstream_errors import masked
from sseflask.runs.outcome import Generated, NotedFrames, Outcome
from sseflask.store.run_api import Run, size_of

_GAP = rb"(?:\s|data:)*"
#: A usage that is not null; OpenAI sends null in all chunks but the last.
_HAS_USAGE = re.compile(rb'"usage"%b:%b\{%b"' % (_GAP, _GAP, _GAP))
#: Bytes of a usage; a longer one would be stored with each further frame.
_MAX_USAGE = 4096
_HAS_TEXT = re.compile(
    rb'"(?:content|text|delta|reasoning_content|reasoning|thinking|refusal|arguments)"\s*:\s*"[^"]'
    rb'|"arguments"\s*:\s*\{'
)


class UsageNotes:
    """What is known of the usage of one completion.

    The notes begin with the number of frames that had a piece of text, reasoning or arguments. The
    last usage that the upstream sent follows after a space, as JSON.
    """

    def __init__(self) -> None:
        self._with_text = 0
        self._usage = b""

    def after(self, frame: bytes) -> bytes:
        """The notes after the next frame. Searches it; parses it only if it has a usage."""
        if frame.startswith(b"event: response."):
            self._with_text += b'.delta"' in frame
            return b"%d" % self._with_text
        # The spelling of nearly all chunks comes first: a regular expression takes longer.
        at = frame.rfind(b'"usage"')
        if at >= 0 and frame[at + 7 : at + 12] != b":null" and _HAS_USAGE.search(frame):
            usage = json.dumps(_usage_in(message(frame)[1]) or None).encode()
            if usage != b"null" and len(usage) <= _MAX_USAGE:
                self._usage = b" " + usage
        at = frame.find(b'"content":"')
        if (at >= 0 and frame[at + 11 : at + 12] != b'"') or _HAS_TEXT.search(frame):
            self._with_text += 1
        return b"%d%b" % (self._with_text, self._usage)


def with_usage_notes(frames: Generated) -> Generated:
    """Give a completion's frames together with the notes of its usage, and its outcome as it is.

    The frames are not begun yet; they are closed when this is closed.
    """
    notes = UsageNotes()
    with contextlib.closing(frames):
        for came in frames:
            if isinstance(came, list):
                yield NotedFrames(came, [notes.after(frame) for frame in came])
            else:
                yield came


def usage_of(notes: bytes, outcome_frame: bytes | None = None) -> dict[str, Any] | None:
    """The tokens that a completion took, by its last notes or the upstream's own last frame.

    This is the last usage that the upstream sent, unchanged. If it sent none, it is the number of
    frames with a part of the answer as ``completion_tokens``, marked as ``partial``. ``None`` if
    nothing came.
    """
    if not notes and outcome_frame is None:
        return None
    with_text, _, noted = notes.partition(b" ")
    usage = json.loads(noted) if noted else None
    if outcome_frame is not None:
        usage = _usage_in(dict_or_empty(message(outcome_frame)[1]).get("response"))
    if not usage:
        return {"completion_tokens": int(with_text or b"0"), "partial": True}
    cleaned: dict[str, Any] = masked(usage, ())  # without the infinities that JSON can't spell
    return cleaned


def _usage_in(value: Any) -> dict[str, Any]:
    return dict_or_empty(dict_or_empty(value).get("usage"))


@dataclass(frozen=True)
class CompletionOutcome(Outcome):
    """The one end that every completion has.

    The reason is the upstream's ``finish_reason`` (``stop``, ``length``, ``content_filter``,
    ``tool_calls``, ...); ``None`` if it never said.

    Args:
        frame: the upstream's own last frame if its API has one (`response.completed` and its
            like), without our key.
        usage: the tokens that it took. Stored as notes of the frames, and not with the outcome.
    """

    frame: bytes | None = None
    usage: dict[str, Any] | None = None

    @property
    def size(self) -> int:
        return 0 if self.frame is None else size_of((self.frame,))

    def further(self) -> dict[str, Any]:
        frame = self.frame
        return {} if frame is None else {"frame": frame.decode(errors="surrogateescape")}

    @classmethod
    def of(cls, run: Run) -> CompletionOutcome:
        stored = cls.stored(run)
        frame: str | None = stored.get("frame")
        last = None if frame is None else frame.encode(errors="surrogateescape")
        usage = usage_of(run.notes, last)
        return cls(stored["kind"], stored["reason"], stored["failure"], last, usage)

    def details(self) -> str:
        return f", usage {json.dumps(self.usage)}"
