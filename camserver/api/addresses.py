"""Network addresses of clients. Pure."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address


def network_of(address: str) -> str:
    """The part of an address that one person has: an IPv4 address, or an IPv6 network (/64)."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return parsed.exploded[:19]


def is_address(text: str) -> bool:
    """Whether a text is an address, and no name."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def is_loopback(text: str) -> bool:
    """Whether a text is an address of this machine's own network."""
    return is_address(text) and ip_address(text).is_loopback
