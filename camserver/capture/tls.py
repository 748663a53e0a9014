"""The TLS settings for cameras: rtsps:// and https://."""

from __future__ import annotations

import ssl
from asyncio.sslproto import SSLProtocol
from functools import cache

READ_BYTES = 8 * 1024
"""How much of a TLS connection is read and decrypted in one turn of the event loop.

asyncio reads 256 kB. A camera that fills them with records of one byte costs 90 ms a turn. There is
no public place for this. A test fails when it has no effect any more.
"""
SSLProtocol.max_size = READ_BYTES


@cache
def tls_context(verify: bool) -> ssl.SSLContext:
    """The settings. Without `verify` any certificate is accepted, and old TLS."""
    context = ssl.create_default_context()
    if not verify:  # most cameras sign their own certificates, and many speak only old TLS
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
    return context
