"""The two APIs of OpenAI that stream completions. No I/O."""

from __future__ import annotations

#: The names of Chat Completions and of the Responses API: the labels of runs that are streamed.
CHAT, RESPONSES = "chat", "responses"
#: The label of runs that are one document, of either API.
DOCUMENT_LABEL = "whole"

DIALECTS = {"/chat/completions": CHAT, "/responses": RESPONSES}
