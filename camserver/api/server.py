"""The API's server: HTTP on a unix socket, whose mode is the gate. Owns the socket and the routes; does nothing itself.

What it serves is handed in as `Services`. A lease given to another process lives exactly as long as its connection:
when the process dies, the kernel closes its socket and the handler is cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import json
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from camserver.config import Camera
from camserver.errors import CamserverError, RtspBusy
from camserver.leases import DeviceStatistics, Holder, Priority, RtspLease, RtspManager
from camserver.records import Attempt, Result, SessionEnd

MODE = 0o660
GROUP = "camserver"
MAX_CONNECTIONS = 512
MAX_LABEL_CHARS = 64
MAX_WAIT_S = 3600.0
STOP_S = 0.2
"""How long running answers may take when the daemon stops; leases end with it, their holders claim them again."""
_PEER = struct.Struct("3i")     # struct ucred: pid, uid, gid


class ApiUnavailable(CamserverError):  # noqa: N818 - it says what is the case
    """Raised when the socket cannot be made; the message says why."""


@dataclass(frozen=True, slots=True)
class Services:
    """What the daemon does for the API."""

    cameras: Callable[[], tuple[Camera, ...]]
    folder: Callable[[str], Path]
    """Where a camera's latest.jpg and latest.json are."""
    manager: RtspManager
    snapshot: Callable[[Camera, Holder], Awaitable[Attempt]]
    reload: Callable[[], Awaitable[tuple[str, ...]]]
    """Reads the inventory again; returns its faults, none when it was taken over."""


class ApiServer:
    """Serves `services` on a unix socket between `start` and `stop`."""

    def __init__(self, services: Services) -> None:
        self._services = services
        app = web.Application(client_max_size=64 * 1024)
        app.add_routes([
            web.get("/healthz", self._healthz),
            web.get("/v1/cameras", self._cameras), web.get("/v1/cameras/{id}", self._camera),
            web.get("/v1/cameras/{id}/latest.jpg", self._latest), web.get("/v1/leases", self._leases),
            web.post("/v1/cameras/{id}/snapshot", self._snapshot), web.post("/v1/cameras/{id}/lease", self._lease),
            web.post("/v1/reload", self._reload),
        ])
        # A handler is cancelled when its client is gone: so does a lease end.
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, keepalive_timeout=30.0,
                                     shutdown_timeout=STOP_S)
        self._path: Path | None = None
        self._stopping = False

    async def start(self, path: Path) -> None:
        """Listen on `path`. Raises ApiUnavailable."""
        sock = _listen(path)
        self._path = path
        await self._runner.setup()
        await web.SockSite(self._runner, sock).start()

    async def stop(self) -> None:
        """Close the socket and every connection; leases of others are left to them."""
        self._stopping = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.9):
                await self._runner.cleanup()
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()

    # ---- reading

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "cameras": len(self._services.cameras())})

    async def _cameras(self, _: web.Request) -> web.Response:
        return web.json_response([self._facts(camera) for camera in self._services.cameras()])

    async def _camera(self, request: web.Request) -> web.Response:
        return web.json_response(self._facts(self._wanted(request)))

    async def _latest(self, request: web.Request) -> web.StreamResponse:
        path = self._services.folder(self._wanted(request).id) / "latest.jpg"
        if not path.exists():
            raise _refusal(web.HTTPNotFound, "no picture yet")
        return web.FileResponse(path, headers={"Cache-Control": "no-cache"})

    async def _leases(self, _: web.Request) -> web.Response:
        now = asyncio.get_running_loop().time()
        return web.json_response([device_view(device, now) for device in self._services.manager.statistics()])

    def _facts(self, camera: Camera) -> dict[str, Any]:
        latest = None
        with contextlib.suppress(OSError, ValueError):
            latest = json.loads((self._services.folder(camera.id) / "latest.json").read_text())
        return {"id": camera.id, "name": camera.name, "device": camera.device, "interval_s": camera.interval_s,
                "max_sessions": camera.max_sessions, "latest": latest}

    # ---- doing

    async def _snapshot(self, request: web.Request) -> web.Response:
        camera = self._wanted(request)
        attempt = await self._services.snapshot(camera, self._holder(request, "snapshot"))
        if attempt.snapshot is not None:
            return web.Response(body=attempt.snapshot.still.jpeg, content_type="image/jpeg")
        kind = web.HTTPConflict if attempt.result in (Result.BUSY, Result.FULL) else web.HTTPBadGateway
        raise _refusal(kind, attempt.error or "", result=attempt.result)

    async def _reload(self, _: web.Request) -> web.Response:
        faults = await self._services.reload()
        if faults:
            raise _refusal(web.HTTPUnprocessableEntity, "the inventory is refused; the running one stays", faults=faults)
        return web.json_response({"cameras": len(self._services.cameras())})

    async def _lease(self, request: web.Request) -> web.StreamResponse:
        """One JSON line when the lease is granted; then the connection stays open for as long as it is held.

        A client that sends a body (chunked) ends the lease with it: `{"end": "clean"}` and a line's end say that its session
        was torn down in good order.
        """
        camera = self._wanted(request)
        priority, wait_s = _priority(request), _seconds(request, "wait", camera.lease_wait_s)
        ttl_s = _seconds(request, "ttl", 0.0)
        holder = self._holder(request, "live" if priority is Priority.LIVE else "external")
        with await self._acquire(request, camera, holder, priority, wait_s) as lease:
            response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
            granted = {"state": "granted", "camera": camera.id, "device": camera.device, "generation": lease.generation,
                       "wait_ms": round(lease.wait_s * 1000, 1)}
            try:
                await response.prepare(request)
                await response.write(json.dumps(granted).encode() + b"\n")
                async with asyncio.timeout(ttl_s or None):
                    if await _said_clean(request):
                        lease.ended(SessionEnd.CLEAN)
            except TimeoutError:
                return response
            except asyncio.CancelledError:
                if self._stopping:      # the client is still there, and its session: it claims its lease again
                    lease.abandon()
                raise
            return response

    async def _acquire(self, request: web.Request, camera: Camera, holder: Holder, priority: Priority,
                       wait_s: float) -> RtspLease:
        manager = self._services.manager
        if (generation := int(_seconds(request, "claim", 0.0, most=1e15))) and (
                lease := manager.claim(camera.id, camera.device, holder, generation, priority=priority)) is not None:
            return lease
        try:
            return await manager.acquire(camera.id, camera.device, holder, priority=priority, lease_wait_s=wait_s)
        except RtspBusy as busy:
            now = asyncio.get_running_loop().time()
            device = next(d for d in manager.statistics() if d.device == camera.device)
            raise _refusal(web.HTTPConflict, str(busy), **device_view(device, now)) from None

    # ---- who and what

    def _wanted(self, request: web.Request) -> Camera:
        wanted = request.match_info["id"]
        camera = next((c for c in self._services.cameras() if c.id == wanted), None)
        if camera is None:
            raise _refusal(web.HTTPNotFound, f"no enabled camera {wanted[:64]!r}")
        return camera

    @staticmethod
    def _holder(request: web.Request, kind: str) -> Holder:
        """Who asks, by what the kernel says of the other end (unix(7), SO_PEERCRED)."""
        label = request.query.get("label", "")[:MAX_LABEL_CHARS]
        if not label.isprintable():
            raise _refusal(web.HTTPBadRequest, "label: expected printable text")
        transport = request.transport
        sock = transport.get_extra_info("socket") if transport is not None else None
        pid = _PEER.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))[0] if sock is not None else 0
        command = ""
        with contextlib.suppress(OSError):      # hidden from a hardened unit (ProtectProc=)
            command = Path(f"/proc/{pid}/comm").read_text().strip()
        return Holder(kind, label or command, pid)


def device_view(device: DeviceStatistics, now: float) -> dict[str, Any]:
    """A device and its leases as JSON; seconds are ages."""
    return {
        "device": device.device, "max_sessions": device.max_sessions, "waiting": device.waiting, "cooling": device.cooling,
        "held": [{"holder": holder.kind, "label": holder.label, "pid": holder.pid or None, "for_s": round(now - since, 3)}
                 for holder, since in device.held],
        "granted": device.granted, "busy": device.busy,
        "wait_s_total": round(device.wait_s_total, 3), "wait_s_max": round(device.wait_s_max, 3),
    }


def _refusal(kind: type[web.HTTPException], error: str, **more: object) -> web.HTTPException:
    return kind(text=json.dumps({"error": error, **more}) + "\n", content_type="application/json")


def _priority(request: web.Request) -> Priority:
    text = request.query.get("priority", "live")
    try:
        return Priority[text.upper()]
    except KeyError:
        raise _refusal(web.HTTPBadRequest, "priority: expected live, event or poll") from None


def _seconds(request: web.Request, name: str, default: float, most: float = MAX_WAIT_S) -> float:
    text = request.query.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= most:
        raise _refusal(web.HTTPBadRequest, f"{name}: expected a number from 0 to {most:g}")
    return value


async def _said_clean(request: web.Request) -> bool:
    """Wait until the client's body ends; whether it said that its session ended in good order.

    Without a body this waits for the connection's end, which cancels it.
    """
    if not request.body_exists:
        await asyncio.get_running_loop().create_future()
    said = b""
    async for chunk in request.content.iter_any():
        said = (said + chunk)[-256:]
        if b"\n" in said:
            break
    try:
        return bool(json.loads(said or b"{}").get("end") == "clean")
    except (ValueError, AttributeError):
        return False


def _listen(path: Path) -> socket.socket:
    """A socket of our own; one that a killed daemon left is replaced, one that somebody serves is not."""
    sock = socket.socket(socket.AF_UNIX)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(str(path))
            except (FileNotFoundError, ConnectionRefusedError):
                path.unlink(missing_ok=True)
            else:
                raise ApiUnavailable(f"{path}: somebody else serves it")
        mask = os.umask(0o777 & ~MODE)
        try:
            sock.bind(str(path))
        finally:
            os.umask(mask)
        with contextlib.suppress(KeyError, PermissionError):
            os.chown(path, -1, grp.getgrnam(GROUP).gr_gid)
        sock.listen(MAX_CONNECTIONS)
    except OSError as error:
        sock.close()
        raise ApiUnavailable(f"{path}: {error.strerror or error}") from None
    except ApiUnavailable:
        sock.close()
        raise
    return sock
