"""The TLS settings for cameras: rtsps:// and https://."""

from __future__ import annotations

import ssl
from functools import cache


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
