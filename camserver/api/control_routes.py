"""Routes that act: they take a snapshot, grant a lease to another program, or reload.

They are served only on the unix socket.

A lease of another process lives exactly as long as its connection. When the process dies, the
kernel closes its socket, and the handler is cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import select
from collections.abc import Iterator

from aiohttp import web

from camserver.api.captures import holder_of
from camserver.api.responses import (
    MAX_TTL_S,
    FleetLease,
    Services,
    claim_of,
    device_view,
    priority_of,
    refusal,
    seconds_of,
)
from camserver.archive.index import IndexUnavailable
from camserver.client.exchange import FACTS_HEADER, RIGHT_HEADER, TELL_RIGHT
from camserver.config import Camera
from camserver.errors import LeaseStateError, NotPolledError, RtspBusy
from camserver.leases import Holder, Priority, RtspLease
from camserver.model import Result, SessionEnd
from camserver.storage.published import facts_of, jpeg_of

HOLD_S, HOLD_LEAST_S = 600.0, 60.0
"""How long a hold lets hosts have sessions without the store: default, and least."""
GRACE_S = 10.0
"""Seconds that a holder has to end its session after its lease is withdrawn.

If it was withdrawn because its ttl is over, it then ends as unclean.
"""


class ControlRoutes:
    """The routes that act on `services`."""

    def __init__(self, services: Services, grace_s: float = GRACE_S) -> None:
        self._services = services
        self._grace_s = grace_s
        self._reloads: set[asyncio.Task[tuple[str, ...]]] = set()
        self.stopping = False
        """Set when the daemon stops.

        Leases are then left to their holders. They claim them from the next daemon.
        """

    def routes(self) -> Iterator[web.RouteDef]:
        """Yield the routes for an application's router."""
        yield web.post("/v1/cameras/{id}/snapshot", self._snapshot)
        yield web.post("/v1/cameras/{id}/lease", self._lease)
        yield web.post("/v1/cameras/{id}/relearn", self._relearn)
        yield web.post("/v1/reload", self._reload)
        yield web.post("/v1/retention/confirm", self._confirm_clock)
        yield web.post("/v1/fleet/drain", self._drain)
        yield web.post("/v1/fleet/undrain", self._drain)
        yield web.post("/v1/fleet/hold", self._hold_fleet)
        yield web.post("/v1/fleet/release", self._hold_fleet)

    async def _snapshot(self, request: web.Request) -> web.Response:
        camera = self._services.polled_here(request)
        return await snapshot_answer(self._services, camera, holder_of(request, "snapshot"))

    async def _relearn(self, request: web.Request) -> web.Response:
        return relearn_answer(self._services, request)

    async def _confirm_clock(self, _: web.Request) -> web.Response:
        try:
            doubt = await self._services.confirm_clock()
        except IndexUnavailable as error:
            raise refusal(
                web.HTTPServiceUnavailable, f"the index of the archive: {error}"
            ) from None
        return web.json_response({"doubt": doubt})

    async def _drain(self, request: web.Request) -> web.Response:
        if self._services.fleet is None:
            raise refusal(web.HTTPNotFound, "this host is on its own: it has no [fleet] table")
        host, drained = request.query.get("host", ""), request.path.endswith("/drain")
        try:
            problem = await self._services.fleet.drain(host, drained)
        except LookupError:
            raise refusal(web.HTTPNotFound, f"no host {host[:64]!r} in the fleet") from None
        if problem is not None:
            raise refusal(web.HTTPServiceUnavailable, f"the store of the fleet: {problem}")
        return web.json_response({"host": host, "drained": drained})

    async def _hold_fleet(self, request: web.Request) -> web.Response:
        if self._services.fleet is None:
            raise refusal(web.HTTPNotFound, "this host is on its own: it has no [fleet] table")
        for_s = 0.0
        if request.path.endswith("/hold"):
            for_s = seconds_of(request, "for", HOLD_S)
            if for_s < HOLD_LEAST_S:
                raise refusal(web.HTTPBadRequest, f"for: expected at least {HOLD_LEAST_S:g} s")
        problem, late = await self._services.fleet.hold(for_s)
        if problem:
            raise refusal(web.HTTPServiceUnavailable, f"the store of the fleet: {problem}")
        return web.json_response({"for_s": for_s, "late": late})

    async def _reload(self, _: web.Request) -> web.Response:
        # When the client disconnects, the reload must not stop halfway. So it has its own task.
        task = asyncio.create_task(_faults(self._services), name="reload")
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)
        faults = await asyncio.shield(task)
        if faults:
            raise refusal(
                web.HTTPUnprocessableEntity,
                "the inventory is refused; the running one stays",
                faults=faults,
            )
        return web.json_response({"cameras": len(self._services.cameras())})

    async def _lease(self, request: web.Request) -> web.StreamResponse:
        """Send one JSON line when the lease is granted; keep the connection open while it is held.

        A client may send a chunked body. The end of the body ends the lease. The line
        `{"end": "clean"}` in it says that the session had a clean end. The daemon sends a second
        line when the lease is withdrawn; it says how many seconds the client has. In a fleet, a
        client that asks for it is told again and again until when it may have its session.
        """
        camera = self._services.wanted(request)
        if self.stopping:
            raise refusal(web.HTTPServiceUnavailable, "the daemon is stopping")
        priority, wait_s = priority_of(request), seconds_of(request, "wait", camera.lease_wait_s)
        ttl_s = seconds_of(request, "ttl", 0.0, MAX_TTL_S)
        holder = holder_of(request, "live" if priority is Priority.LIVE else "external")
        # The client may have disconnected while its request waited in the socket's queue. Its
        # claim must not take the lease from a newer connection that is alive.
        if _has_left(request):
            raise refusal(web.HTTPServiceUnavailable, "nobody is there to take the lease")
        with await self._acquire(request, camera, holder, priority, wait_s) as lease:
            response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
            response.force_close()
            try:
                await response.prepare(request)
                await _say(
                    response,
                    state="granted",
                    camera=camera.id,
                    device=camera.device,
                    generation=lease.generation,
                    claim=lease.claim,
                    wait_ms=round(lease.wait_s * 1000, 1),
                    **(_right_of(lease) if _wants_right(request) else {}),
                )
                await self._hold(request, response, lease, ttl_s)
            except asyncio.CancelledError:
                # The client and its session still exist. The client claims its lease again.
                if self.stopping:
                    lease.abandon()
                raise
            return response

    async def _hold(
        self,
        request: web.Request,
        response: web.StreamResponse,
        lease: RtspLease | FleetLease,
        ttl_s: float,
    ) -> None:
        """Wait until the client gives the lease back.

        A client that is preempted gets a notice and keeps its lease until its session is closed,
        because only the client can prove that. Only a ttl limits a holder that hangs: `grace_s`
        after the end of the ttl the lease ends as unclean.
        """
        told = [self._tell_withdrawal(response, lease, ttl_s)]
        if _wants_right(request) and not isinstance(lease, RtspLease):
            told.append(_tell_right(response, lease))
        notices = [asyncio.create_task(each, name="lease notice") for each in told]
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ttl_s + self._grace_s if ttl_s else None):
                    await _ended(request, lease)
        finally:
            for notice in notices:
                notice.cancel()

    async def _tell_withdrawal(
        self, response: web.StreamResponse, lease: RtspLease | FleetLease, ttl_s: float
    ) -> None:
        """Wait until the lease is preempted or its ttl is over, then tell the client."""
        try:
            async with asyncio.timeout(ttl_s or None):
                why: str = await lease.preempted()
        except TimeoutError:
            why = f"its time of {ttl_s:g} s is over"
        grace_s = self._grace_s
        if not isinstance(lease, RtspLease):
            grace_s = min(grace_s, lease.may_last_s)
        with contextlib.suppress(ConnectionError):  # then the lease has ended already
            await _say(response, state="withdrawn", why=why, grace_s=round(grace_s, 3))

    async def _acquire(
        self,
        request: web.Request,
        camera: Camera,
        holder: Holder,
        priority: Priority,
        wait_s: float,
    ) -> RtspLease | FleetLease:
        if self._services.fleet is not None:
            return await self._borrow(request, camera, holder, priority, wait_s)
        manager = self._services.manager
        if (claim := claim_of(request)) is not None and (
            lease := manager.claim(camera.id, camera.device, holder, claim, priority=priority)
        ) is not None:
            return lease
        try:
            return await manager.acquire(
                camera.id, camera.device, holder, priority=priority, lease_wait_s=wait_s
            )
        except RtspBusy as busy:
            raise busy_refusal(self._services, camera, str(busy)) from None
        except LeaseStateError:
            raise refusal(
                web.HTTPServiceUnavailable, "the device has just left the inventory: ask again"
            ) from None

    async def _borrow(
        self,
        request: web.Request,
        camera: Camera,
        holder: Holder,
        priority: Priority,
        wait_s: float,
    ) -> FleetLease:
        """A lease from the host of the fleet that owns the device."""
        fleet = self._services.fleet
        assert fleet is not None  # noqa: S101 - the caller has looked
        if not _wants_right(request):
            raise refusal(
                web.HTTPBadRequest,
                f"in a fleet, a program must know its right: send {RIGHT_HEADER}: {TELL_RIGHT},"
                " and end the session in time",
            )
        if claim_of(request) is not None:
            raise refusal(
                web.HTTPConflict, "a lease of a fleet ends with the daemon that gave it: ask anew"
            )
        try:
            return await fleet.borrow(camera, holder, priority, wait_s)
        except RtspBusy as busy:
            raise refusal(web.HTTPConflict, str(busy)) from None


async def snapshot_answer(services: Services, camera: Camera, holder: Holder) -> web.Response:
    """Take a picture now, and return it with its facts. Raises 409, 502, 503."""
    try:
        attempt = await services.on_demand.snapshot(camera, holder)
    except NotPolledError as error:
        raise refusal(web.HTTPServiceUnavailable, str(error)) from None
    if attempt.snapshot is not None:
        jpeg = jpeg_of(attempt.snapshot)
        facts = facts_of(attempt.snapshot, len(jpeg))
        known = services.outcomes.get(camera.id)
        if known is not None and known.picture["captured_at"] == facts["captured_at"]:
            facts = dict(known.picture)  # with its name in the archive
        return web.Response(
            body=jpeg, content_type="image/jpeg", headers={FACTS_HEADER: json.dumps(facts)}
        )
    if attempt.result in (Result.BUSY, Result.FULL):
        raise busy_refusal(services, camera, attempt.error or "", result=attempt.result)
    overloaded = attempt.result is Result.OVERLOADED
    kind = web.HTTPServiceUnavailable if overloaded else web.HTTPBadGateway
    raise refusal(kind, attempt.error or "", result=attempt.result)


def relearn_answer(services: Services, request: web.Request) -> web.Response:
    """Learn anew what the pictures of a camera show. Raises 404, 503."""
    camera = services.polled_here(request)
    health = services.relearn(camera.id)
    if health is None:
        raise refusal(
            web.HTTPNotFound, f"{camera.id}: its pictures are not judged (health = false)"
        )
    return web.json_response({"camera": camera.id, "was": health.state})


def busy_refusal(
    services: Services, camera: Camera, error: str, **more: object
) -> web.HTTPException:
    """Return a 409 that says who holds the device's sessions, and for how long."""
    now = asyncio.get_running_loop().time()
    with contextlib.suppress(LeaseStateError):  # its device has just left the inventory
        device = services.manager.device_statistics(camera.device)
        more = device_view(device, now) | more
    return refusal(web.HTTPConflict, error, **more)


def _has_left(request: web.Request) -> bool:
    """Return whether the client has closed, even if the event loop does not know it yet."""
    sock = request.transport.get_extra_info("socket") if request.transport is not None else None
    if sock is None:
        return True
    poller = select.poll()
    poller.register(sock.fileno(), select.POLLRDHUP)
    return bool(poller.poll(0))


async def _faults(services: Services) -> tuple[str, ...]:
    return await services.reload()


async def _say(response: web.StreamResponse, **words: object) -> None:
    await response.write(json.dumps(words).encode() + b"\n")


def _wants_right(request: web.Request) -> bool:
    return request.headers.get(RIGHT_HEADER) == TELL_RIGHT


def _right_of(lease: RtspLease | FleetLease) -> dict[str, float]:
    """Return until when a program of a fleet may have its session; nothing on a host of its own."""
    if isinstance(lease, RtspLease):
        return {}
    end_at, until = lease.right
    return {"end_at": round(end_at, 3), "until": round(until, 3)}


async def _tell_right(response: web.StreamResponse, lease: FleetLease) -> None:
    """Tell the client each extension of its right. A client that is gone has no right to extend."""
    with contextlib.suppress(ConnectionError):
        while True:
            await lease.extended()
            await _say(response, state="right", **_right_of(lease))


async def _ended(request: web.Request, lease: RtspLease | FleetLease) -> None:
    """Wait until the client's body ends, and tell the lease whether the session had a clean end.

    Without a body this waits until the connection ends; then the handler is cancelled.
    """
    if not request.body_exists:
        await asyncio.get_running_loop().create_future()
    said = b""
    async for chunk in request.content.iter_any():
        said = (said + chunk)[-256:]
        if b"\n" in said:
            break
    with contextlib.suppress(ValueError, AttributeError):
        if json.loads(said or b"{}").get("end") == "clean":
            lease.ended(SessionEnd.CLEAN)
