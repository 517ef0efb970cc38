"""The two APIs of OpenAI that stream completions. No I/O."""

from __future__ import annotations

#: The names of Chat Completions and of the Responses API, as they are stored.
CHAT, RESPONSES = "chat", "responses"
#: Is stored in the place of these names if a completion is one document.
NOT_STREAMED = "whole"

DIALECTS = {"/chat/completions": CHAT, "/responses": RESPONSES}
