"""Leases. A lease is the right to hold one session of a device.

A lease ends when the transport is proven closed.
"""

from camserver.leases.lease import Preempted, RtspLease
from camserver.leases.manager import RtspManager
from camserver.leases.ticket import Budget, Claim, DeviceStatistics, Holder, Priority

__all__ = [
    "RtspManager",
    "RtspLease",
    "Preempted",
    "Budget",
    "Claim",
    "Holder",
    "Priority",
    "DeviceStatistics",
]
