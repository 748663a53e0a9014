"""Clients of the API for other programs: one for threads and scripts, and one for asyncio.

    picture = SyncLeaseClient().latest("gate", max_age=5)   # picture.jpeg, picture.facts
    with SyncLeaseClient().lease("gate"):
        ...                                     # you may open one session of the camera's device
    async with LeaseClient().lease("gate"):
        ...

The lease lives as long as the connection. Leaving the block without an exception says that the
session had a clean end; then the device's cool-down is short. A lease can be withdrawn: its ttl is
over, or a live request preempts it (a recorder's lease with priority "poll"). `next_notice()` or
`withdrawn()` reports this, and the holder must end its session.

In a fleet of hosts, a program may have its session only while its host may have sessions: `right`
says until when. It is extended about once a second. When it is over, or when the daemon is gone,
the program must end its session at once; `camserver lease` lets the kernel do that.
"""

from camserver.client.aio import AsyncHeldLease, LeaseClient
from camserver.client.exchange import ApiRefusal, DaemonUnavailableError, Picture
from camserver.client.lease_exchange import Granted, LeaseNotice, LeaseRequest, LeaseState, Right
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
    "LeaseState",
    "Right",
    "DaemonUnavailableError",
    "ApiRefusal",
    "RtspBusy",
]
