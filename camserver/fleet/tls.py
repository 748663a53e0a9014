"""TLS between the hosts of a fleet: both sides show a certificate of the fleet's own authority.

A certificate is for the name of a host in the fleet, not for its address. So a host may move.
"""

from __future__ import annotations

import ssl
from pathlib import Path


def server_context(ca: Path, certificate: Path, key: Path) -> ssl.SSLContext:
    """For a host that answers others. Raises OSError when a file cannot be used."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=ca)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(certificate, key)
    return context


def client_context(ca: Path, certificate: Path, key: Path) -> ssl.SSLContext:
    """For a host that asks others. The name to check is given with each connection.

    Raises OSError when a file cannot be used.
    """
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=ca)
    context.load_cert_chain(certificate, key)
    return context
