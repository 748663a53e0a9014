"""Clients for other programs: leases and pictures of a running daemon."""

from camserver.client.clients import (
    ApiRefusal,
    AsyncHeldLease,
    DaemonUnavailableError,
    HeldLease,
    LeaseClient,
    LeaseNotice,
    Picture,
    RtspBusy,
    SyncLeaseClient,
)

__all__ = [
    "SyncLeaseClient",
    "LeaseClient",
    "Picture",
    "HeldLease",
    "AsyncHeldLease",
    "LeaseNotice",
    "DaemonUnavailableError",
    "ApiRefusal",
    "RtspBusy",
]
