"""Scripts as files."""

from __future__ import annotations

import re
from pathlib import Path

from sseflask.store.redis import script

#: Each Redis has them, and none of these keeps a store from its work.
_NOT_TRIED = {"EVAL", "EVALSHA", "INFO", "MEMORY", "PING", "INCR"}


def test_every_command_is_tried_before_it_is_needed() -> None:
    """See ``try_commands.lua``; what moves stores, and `Pipeline`, has commands of its own."""
    folder = Path(script.__file__).parent
    used = set()
    for path in folder.glob("lua/*.lua"):
        if path.name not in ("try_commands.lua", "count_request.lua"):
            used |= set(re.findall(r"\b\w*call\(\s*'([A-Z]+)'", path.read_text()))
            used |= set(re.findall(r"'((?:XREV|X|ZREV|Z)RANGE)'", path.read_text()))
    for path in folder.glob("*.py"):
        if "transfer" not in path.name and path.name != "pipeline.py":
            text = path.read_text()
            used |= set(re.findall(r"link\.command\(\s*\*?\(?\"([A-Z]+)\"", text))
    assert {"XADD", "XREAD", "ZREVRANGE", "HGETALL", "SRANDMEMBER"} <= used
    tried = set(re.findall(r"'([A-Z]{2,})'", (folder / "lua" / "try_commands.lua").read_text()))
    assert used - _NOT_TRIED <= tried
