"""Clients of the API for other programs: a plain one for threads and scripts, and one for asyncio.

    picture = SyncLeaseClient().latest("gate")      # picture.jpeg, picture.facts
    with SyncLeaseClient().lease("gate"):
        ...                                     # one session of the camera's device is ours
    async with LeaseClient().lease("gate"):
        ...

The lease lives as long as the connection. Leaving the block without an exception says that the
session was torn down in good order, which makes the device's cool-down a short one. A lease can be
withdrawn (its time is over; live view wants the session of a recorder with priority "poll"):
`next_notice()` or `withdrawn()` tell, and whoever holds it ends its session.
"""

from camserver.client.aio import AsyncHeldLease, LeaseClient
from camserver.client.exchange import ApiRefusal, DaemonUnavailableError, Picture
from camserver.client.lease_exchange import Granted, LeaseNotice, LeaseRequest
from camserver.client.sync import HeldLease, LeaseAttempt, SyncLeaseClient
from camserver.errors import RtspBusy

__all__ = [
    "SyncLeaseClient",
    "LeaseClient",
    "Picture",
    "HeldLease",
    "AsyncHeldLease",
    "LeaseRequest",
    "LeaseAttempt",
    "Granted",
    "LeaseNotice",
    "DaemonUnavailableError",
    "ApiRefusal",
    "RtspBusy",
]
