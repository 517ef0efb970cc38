from __future__ import annotations

import pytest

from sseflask.completions.dialects import CHAT, RESPONSES, dialect_of


def test_which_dialect() -> None:
    assert dialect_of("/chat/completions") == CHAT == "chat"
    assert dialect_of("/responses") == RESPONSES == "responses"
    with pytest.raises(ValueError, match="/models"):
        dialect_of("/models")
