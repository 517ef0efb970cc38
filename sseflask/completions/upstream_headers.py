"""The headers of an upstream's response that are passed on. No I/O.

Users of SDKs pace themselves by its rates, and name its request ids to its people. All others are
kept: cookies, the names of its organisation and of what is behind it, what is about its connection.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import httpx2

from sseflask.logs.masking import mask

__all__ = ["relayed_headers"]

#: OpenAI's and its imitators' x-ratelimit-*, Anthropic's, and the ones of the IETF's draft.
_RATES = re.compile(r"(?:x-|x-ms-|anthropic-)?rate-?limit(?:-[a-z0-9-]{1,60})?")
_IDS = re.compile(r"(?:x-|x-ms-|apim-|x-amzn-)?request-?id")
#: Whether and when to ask again, in the words of OpenAI's clients: of refusals only.
_RETRIES = ("retry-after", "retry-after-ms", "x-should-retry")

#: Characters of a value, and headers of one response.
_MOST, _MOST_HEADERS = 200, 40


def relayed_headers(
    headers: httpx2.Headers, secrets: Iterable[str], *, refusal: bool = False
) -> dict[str, str]:
    """Those that a client is told, as they came, by their names in one spelling.

    Args:
        headers: the response's.
        secrets: a value with one of them in it is not told.
        refusal: its status is another one than 200.
    """
    told: dict[str, str] = {}
    for name, value in headers.items():
        name = name.lower()
        if (
            (_RATES.fullmatch(name) or _IDS.fullmatch(name) or (refusal and name in _RETRIES))
            and value.isascii()
            and value.isprintable()
            and len(value) <= _MOST
            and mask(value, secrets) == value
            and len(told) < _MOST_HEADERS
        ):
            told["-".join(map(str.capitalize, name.split("-")))] = value
    return told
