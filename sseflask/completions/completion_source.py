"""What all completions are made of, whoever asks for them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

from sseflask.completions.completion_outcome import with_usage_notes
from sseflask.runs.outcome import Generated
from sseflask.runs.source import RunSource
from sseflask.runs.writer import Writer


class CompletionSource(RunSource):
    """A completion, as the run that it becomes.

    Args:
        label: of one of the kinds in `sseflask.completions.kinds`.
    """

    def __init__(self, label: str) -> None:
        self.label = label
        self._headers: dict[str, str] = {}

    @property
    def headers(self) -> Mapping[str, str]:
        return self._headers

    def generate(self, writer: Writer) -> Generated:  # noqa: ARG002  # nobody else writes it
        self.used = True
        return with_usage_notes(self.answer(self._headers))

    @abstractmethod
    def answer(self, headers: dict[str, str]) -> Generated:
        """Give the generator of its frames and its outcome, not begun. Never blocks.

        Args:
            headers: gets the upstream's headers that clients get, before the first frame is given.
        """
