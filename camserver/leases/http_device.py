"""The web server of a device: it gives so many snapshots at once, beside the device's sessions.

In the lease table it is a device of its own, with a name that is made from the other one. Pure.
"""

from __future__ import annotations

SUFFIX = " (http)"


def http_device(device: str) -> str:
    """The name of a device's web server."""
    return device + SUFFIX


def box_of(name: str) -> str:
    """The device itself, from its own name or from that of its web server."""
    return name.removesuffix(SUFFIX)


def alike(name: str, device: str) -> str:
    """`device`, or its web server if `name` is that of one."""
    return http_device(device) if name.endswith(SUFFIX) else device
