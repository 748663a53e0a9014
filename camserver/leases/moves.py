"""Cameras that change their device at a reload: their tickets and sessions move with them. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from camserver.leases.device import Device
from camserver.leases.http_device import alike, box_of, http_device
from camserver.leases.ticket import Ticket


def move_cameras(
    devices: Mapping[str, Device], before: Mapping[str, str], after: Mapping[str, str]
) -> None:
    """Count the sessions of each camera on its current device (camera id -> device).

    Those of its snapshot URL count on the web servers of these devices.

    A held session also counts on the device where it was opened, until it ends: the new name may
    mean the same box, or the old box may still count the session. Cooling sessions count on both
    devices, too.
    """
    moves = {
        (alike(name, old), alike(name, new))
        for camera, new in after.items()
        if (old := before.get(camera, new)) != new
        for name in (new, http_device(new))
        if name in devices
    }
    cooling = {old: tuple(d.cooling) for old, _ in moves if (d := devices.get(old))}
    for old, new in moves:
        devices[new].cool_also(cooling.get(old, ()))
    for name, device in list(devices.items()):
        for ticket in (*device.waiting, *device.taken):
            new = alike(name, after.get(ticket.camera, box_of(name)))
            if new != name and new in devices:
                _move_ticket(devices, ticket, name, new)


def _move_ticket(devices: Mapping[str, Device], ticket: Ticket, old: str, new: str) -> None:
    source, target = devices[old], devices[new]
    ticket.device = new
    if ticket in source.waiting:
        source.waiting.remove(ticket)
        target.waiting.append(ticket)
        return
    source.taken.remove(ticket)
    source.moved.append(ticket)
    ticket.moved_from.append(old)
    if new in ticket.moved_from:  # the camera is back on an earlier device
        ticket.moved_from.remove(new)
        target.moved.remove(ticket)
    target.taken.append(ticket)
