"""The engine `libav`: RTSP through libav in a session worker. Parent's side; gives an access unit.

The relay holds the session. So `keyframe` returns only after the relay has seen the transport to
the camera closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

from camserver.capture.logins import Logins
from camserver.capture.relay import CameraRelay
from camserver.capture.relay_address import RelayAddresses
from camserver.capture.session import CaptureSessionBase
from camserver.capture.tls import tls_context
from camserver.config import Camera
from camserver.errors import CameraError
from camserver.model import CodedKeyframe, Result, SessionEnd
from camserver.workers.pool import WorkerPool
from camserver.workers.process import Reply
from camserver.workers.template import WorkerTemplate

MARGIN_S = 0.3
"""The worker ends its job this many seconds before the deadline. At the deadline it is killed."""


class LibavEngine:
    """Opens sessions in workers. It remembers which streams need the larger probe."""

    def __init__(
        self,
        size: int,
        template: WorkerTemplate,
        logins: Logins | None = None,
        *,
        on_unsealed: Callable[[str], None] = lambda _: None,
    ) -> None:
        """At most `size` workers, forked from `template`.

        `on_unsealed` is called when the kernel can't limit them.
        """
        self.addresses = RelayAddresses()
        self.pool = WorkerPool("session", size, template, on_unsealed=on_unsealed)
        self.logins = logins or Logins()
        self.probes: dict[str, str] = {}

    async def close(self) -> None:
        """End the workers, so that no session is held."""
        await self.pool.close()
        self.addresses.close()

    def relay(self, camera: Camera, url: str) -> CameraRelay:
        """The way to a camera, for one session. Raises CameraError when there is no port."""
        try:
            self.pool.port = self.addresses.port
        except OSError as error:
            raise CameraError(
                Result.ERROR, f"no port on the loopback: {error.strerror}", SessionEnd.NONE
            ) from None
        return CameraRelay(
            url,
            tls_context(camera.tls_verify) if url.startswith("rtsps") else None,
            self.logins.of(camera, url),
            host=self.addresses.new(),
            port=self.addresses.port,
            rest_s=camera.cooldown_s,
        )

    def session(self, camera: Camera, url: str, deadline: float) -> LibavSession:
        """A session of `url`.

        `deadline` is in event loop time. That is the host's monotonic clock, which the worker uses
        too.
        """
        return LibavSession(self, camera, url, deadline)


class LibavSession(CaptureSessionBase):
    """One session in a worker. It is closed before `keyframe` returns."""

    def __init__(self, engine: LibavEngine, camera: Camera, url: str, deadline: float) -> None:
        self._engine = engine
        self._camera = camera
        self._url = url
        self._deadline = deadline
        self.end = SessionEnd.NONE

    async def keyframe(self) -> CodedKeyframe:
        """The first whole keyframe. It returns after the session is closed.

        Raises CameraError. When this is cancelled, the worker gets a short time to end its job. If
        that is not enough, it is killed. The relay tears down the session in any case.
        """
        camera, url = self._camera, self._url
        left_s = self._deadline - asyncio.get_running_loop().time()
        order = {
            "transport": camera.transport,
            "deadline": self._deadline - min(MARGIN_S, left_s / 4),
            "probe": self._engine.probes.get(url, "small"),
        }
        relay = self._engine.relay(camera, url)
        try:
            async with self._engine.pool.slot(self._deadline), relay:
                reply = await self._engine.pool.run_in_slot(
                    "fetch", order | {"url": relay.url}, deadline=self._deadline, late=_ignore
                )
        except CameraError as error:
            failure = relay.failure or error
            failure.end = relay.end
            raise failure from None
        finally:
            self.end = relay.end
        try:
            cut = int(reply.data["extradata_bytes"])
            at = datetime.fromtimestamp(float(reply.data["at"]), UTC)
            if reply.data["probe"] != "small":
                self._engine.probes[url] = "large"
            return CodedKeyframe(
                str(reply.data["codec"]), reply.blob[cut:], reply.blob[:cut], at, "libav"
            )
        except (KeyError, ValueError, TypeError, OverflowError):
            raise CameraError(
                Result.CRASHED, "the session worker sent an answer that makes no sense", self.end
            ) from None


def _ignore(_: Reply) -> None:
    """Do nothing with the reply of a job that was cancelled."""
