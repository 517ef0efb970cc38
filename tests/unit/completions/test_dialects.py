from __future__ import annotations

import pytest

from sseflask.completions.dialects import CHAT, RESPONSES
from sseflask.completions.upstream import CompletionRequest


def test_which_dialect() -> None:
    assert CompletionRequest("/chat/completions", b"").dialect == CHAT == "chat"
    assert CompletionRequest("/responses", b"").dialect == RESPONSES == "responses"
    with pytest.raises(KeyError, match="/models"):
        _ = CompletionRequest("/models", b"").dialect
