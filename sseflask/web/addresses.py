"""Which addresses are one client's, as far as limits are concerned."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

__all__ = ["client_network"]

#: Addresses that translators make of IPv4's (RFC 6052).
_TRANSLATED = IPv6Network("64:ff9b::/96")
#: What a provider gives to one customer at least (RFC 6177).
_PREFIX = 64


def client_network(address: str | None) -> str:
    """What stands for a client in limits by address.

    Args:
        address: a peer's, or an entry of ``X-Forwarded-For`` as proxies write it: also with a port,
            in brackets, with a zone.

    Returns:
        an IPv4 address; the /64 network of an IPv6 one, as a client has all of it, unless an IPv4
        address is in it; ``"unknown"`` for anything else, so that whoever sends nonsense is one
        client and not many.
    """
    found = _parsed((address or "").strip().strip('"'))
    if isinstance(found, IPv6Address):
        found = _embedded(found) or found
    if found is None or isinstance(found, IPv4Address):
        return str(found or "unknown")
    return str(IPv6Network((int(found) >> _PREFIX << _PREFIX, _PREFIX)))


def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return ip_address(text.partition("%")[0])
    except ValueError:
        return None


def _embedded(address: IPv6Address) -> IPv4Address | None:
    if address in _TRANSLATED:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    # The networks of 6to4 and Teredo are one IPv4 client's, and more of them than one /64.
    return address.ipv4_mapped or address.sixtofour or (address.teredo and address.teredo[1])
