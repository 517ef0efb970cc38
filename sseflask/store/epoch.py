"""Epochs of events: the same number in another epoch is another event."""

from __future__ import annotations

import secrets

#: No two characters look alike.
_LENGTH, _ALPHABET = 8, "abcdefghjkmnpqrstuvwxyz23456789"


def new_epoch() -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))
