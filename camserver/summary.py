"""What the daemon says of itself from time to time: a status line, and a summary each minute."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from camserver.event_log import EventLog
from camserver.events import Event, PollsSummary
from camserver.host import notify
from camserver.leases import RtspManager
from camserver.output import Output
from camserver.polling.orchestrator import PollingOrchestrator

STATUS_S = 10.0
STATUS_CAMERA_S = 0.005
"""A status line looks at all cameras, so one of many cameras is written less often: of 10,000 each
50 s.
"""
SUMMARY_S = 60.0


async def keep_status(orchestrator: PollingOrchestrator) -> None:
    """Keep the status line of `systemctl status` up to date, until cancelled."""
    while True:
        s = orchestrator.statistics()
        notify.notify(
            f"STATUS={s.cameras} cameras: {s.fresh} fresh, {s.failing} failing, {s.running}"
            " being polled"
        )
        await asyncio.sleep(max(STATUS_S, STATUS_CAMERA_S * s.cameras))


async def keep_summary(
    log: EventLog,
    output: Output,
    orchestrator: PollingOrchestrator,
    manager: RtspManager,
    emit: Callable[[Event], None],
) -> None:
    """Write a summary each minute, while routine lines are not written one by one."""
    while True:
        await asyncio.sleep(SUMMARY_S)
        counts = log.take_counts()
        if log.is_summarised:
            ages = sorted(output.outcomes.ages_s().values())
            emit(
                PollsSummary(
                    pictures=counts.pictures,
                    failures=counts.failures,
                    failing=orchestrator.statistics().failing,
                    freshness_p99_s=ages[(len(ages) - 1) * 99 // 100] if ages else None,
                    sessions=manager.sessions,
                )
            )
