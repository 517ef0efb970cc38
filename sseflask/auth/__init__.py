"""Rights: signed tokens, and in development mode trust in this machine."""

from __future__ import annotations

from sseflask.auth.access import (
    Access,
    check_token,
    missing_token,
    refuse_other_sites,
    require,
    require_figures,
    require_publish,
    require_subscribe,
)
from sseflask.auth.tokens import Caller, sign

__all__ = [
    "Access",
    "Caller",
    "check_token",
    "missing_token",
    "refuse_other_sites",
    "require",
    "require_figures",
    "require_publish",
    "require_subscribe",
    "sign",
]
