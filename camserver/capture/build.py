"""Everything that turns a camera into a picture, built in one place.

The daemon, the commands that work without one, the doctor and the tests use the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from camserver.capture.decoder import Decoder
from camserver.capture.engines import RtspEngine
from camserver.capture.http import HttpEngine
from camserver.capture.libav import LibavEngine
from camserver.capture.native import NativeEngine
from camserver.config import Inventory
from camserver.events import DecoderUnsealed, Event
from camserver.workers.pool import WorkerPool

LIBAV_SESSIONS = 16
"""Session workers at once; each is a process. Cameras that speak with our own client need none."""


@dataclass(frozen=True, slots=True)
class Capture:
    """The engines, the decoder, and the worker processes behind them."""

    sessions: WorkerPool
    decoders: WorkerPool
    rtsp: RtspEngine
    http: HttpEngine
    decoder: Decoder
    limits: tuple[int, int | None]
    """polling.sessions and polling.decoders that it was built with."""

    def configure(self, inventory: Inventory) -> tuple[str, ...]:
        """Take over what a reload may change. Returns the keys that need a restart."""
        self.decoder.quality = inventory.output.quality
        self.rtsp.reloaded()
        sessions, decoders = self.limits
        changed = {
            "polling.sessions": inventory.polling.sessions != sessions,
            "polling.decoders": inventory.polling.decoders != decoders,
        }
        return tuple(key for key, is_changed in changed.items() if is_changed)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End all workers: first no session is held any more, then nothing is left to decode."""
        await self.sessions.close()
        await self.decoders.close()


def build_capture(
    quality: int,
    *,
    sessions: int = 1,
    decoders: int | None = 1,
    emit: Callable[[Event], None] = lambda _: None,
) -> Capture:
    """Build it; no worker is started before there is work.

    `quality` of the JPEGs, 1 to 100. `sessions` and `decoders` workers at most; No number of
    decoders: one a core.
    """
    session_pool = WorkerPool("session", min(sessions, LIBAV_SESSIONS))
    decoder_pool = WorkerPool(
        "decoder",
        decoders or os.cpu_count() or 1,
        on_unsealed=lambda why: emit(DecoderUnsealed(reason=why)),
    )
    return Capture(
        session_pool,
        decoder_pool,
        RtspEngine(NativeEngine(), LibavEngine(session_pool), emit),
        HttpEngine(),
        Decoder(decoder_pool, quality),
        (sessions, decoders),
    )
