"""Stores on a Redis or Valkey server, for the processes of any number of machines."""

import re

_URL = re.compile(r"(?:redis|rediss|valkey|valkeys|unix)(?:\+(?:sentinel|cluster|unix))?://")


def is_redis(address: str) -> bool:
    """Whether an address of a store is a URL of a Redis or Valkey server."""
    return _URL.match(address) is not None
