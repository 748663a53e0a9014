"""Build everything that takes a picture of a camera, in one place.

The daemon, the commands that work without a daemon, the doctor and the tests all use it.
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
from camserver.capture.logins import Logins
from camserver.capture.native import NativeEngine
from camserver.config import Inventory
from camserver.events import DecoderUnsealed, Event, LibavUnsealed
from camserver.workers.pool import WorkerPool
from camserver.workers.template import WorkerTemplate

LIBAV_SESSIONS = 16
"""Session workers at once. Each is a process. Cameras that our own client reads need none."""


@dataclass(frozen=True, slots=True)
class Capture:
    """The engines, the decoder, and the worker processes behind them."""

    sessions: WorkerPool
    decoders: WorkerPool
    rtsp: RtspEngine
    http: HttpEngine
    decoder: Decoder
    template: WorkerTemplate
    limits: tuple[int, int | None]
    """The values of polling.sessions and polling.decoders that it was built with."""

    def configure(self, inventory: Inventory) -> tuple[str, ...]:
        """Apply the settings that a reload may change. Return the keys that need a restart."""
        self.decoder.quality = inventory.output.quality
        self.rtsp.reloaded()
        sessions, decoders = self.limits
        changed = {
            "polling.sessions": inventory.polling.sessions != sessions,
            "polling.decoders": inventory.polling.decoders != decoders,
        }
        return tuple(key for key, is_changed in changed.items() if is_changed)

    def another_decoder(self) -> Decoder:
        """A decoder with one worker of its own. Its pool must be closed before this is."""
        return Decoder(WorkerPool("decoder", 1, self.template), self.decoder.quality)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End the session workers, so that no session is held. Then end all other processes."""
        await self.rtsp.libav.close()
        await self.decoders.close()
        await self.template.close()


def build_capture(
    quality: int,
    *,
    sessions: int = 1,
    decoders: int | None = 1,
    emit: Callable[[Event], None] = lambda _: None,
) -> Capture:
    """Build engines, decoder and worker pools. No worker is started before there is work.

    `quality` is the JPEG quality, 1 to 100. `sessions` and `decoders` are the maximum numbers of
    workers. With `decoders` None there is one decoder for each core.
    """
    logins, template = Logins(), WorkerTemplate()
    libav = LibavEngine(
        min(sessions, LIBAV_SESSIONS),
        template,
        logins,
        on_unsealed=lambda why: emit(LibavUnsealed(reason=why)),
    )
    decoder_pool = WorkerPool(
        "decoder",
        decoders or os.cpu_count() or 1,
        template,
        on_unsealed=lambda why: emit(DecoderUnsealed(reason=why)),
    )
    return Capture(
        libav.pool,
        decoder_pool,
        RtspEngine(NativeEngine(logins), libav, emit),
        HttpEngine(),
        Decoder(decoder_pool, quality),
        template,
        (sessions, decoders),
    )
