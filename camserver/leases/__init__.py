"""Leases. A lease is the right to hold one session of a device.

A lease ends when the transport is proven closed.
"""

from camserver.leases.budgets import budgets_of
from camserver.leases.http_device import http_device
from camserver.leases.lease import Preempted, RtspLease
from camserver.leases.manager import RtspManager
from camserver.leases.ticket import Budget, Claim, DeviceStatistics, Holder, Priority

__all__ = [
    "RtspManager",
    "RtspLease",
    "Preempted",
    "Budget",
    "budgets_of",
    "http_device",
    "Claim",
    "Holder",
    "Priority",
    "DeviceStatistics",
]
