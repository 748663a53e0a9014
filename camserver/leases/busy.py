"""What is said when no session of a device came free. Pure."""

from __future__ import annotations

from camserver.errors import RtspBusy, SessionHolder
from camserver.leases.ticket import DeviceStatistics


def busy_error(device: DeviceStatistics, camera: str, lease_wait_s: float, now: float) -> RtspBusy:
    """The error that names the holders of a device's sessions."""
    held = ", ".join(f"{holder} for {now - since:.1f} s" for holder, since in device.held)
    taken = [f"held by {held}"] if held else []
    if device.cooling:
        taken.append(f"{device.cooling} cooling down")
    if device.learned is not None:
        taken.append(f"it gave no more than {device.learned.cap} lately")
    return RtspBusy(
        f"no session of {device.device} came free in {lease_wait_s:.3g} s "
        f"(max_sessions {device.max_sessions}: {'; '.join(taken) or 'others are waiting'})",
        camera=camera,
        holders=tuple(
            SessionHolder(holder.kind, holder.name, now - since) for holder, since in device.held
        ),
        waiting=device.waiting,
        max_sessions=device.max_sessions,
    )
