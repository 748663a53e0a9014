"""What this host answers to the other hosts of its fleet, over mutual TLS.

Who has a certificate of the fleet's authority may read everything here, take snapshots, and take
leases for programs on its host, as a member of the group camserver may on the unix socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from camserver.api.captures import CAPTURE_HEADER, CAPTURES, NO_CAPTURE, CaptureRule
from camserver.api.control_routes import relearn_answer, snapshot_answer
from camserver.api.listener import MAX_BODY_BYTES, SILENT_S, STOP_S, explain
from camserver.api.parameters import known_parameters
from camserver.api.read_routes import ReadRoutes
from camserver.api.responses import ASKED_BY_HOST, Services, refusal
from camserver.errors import NotOwnerError, RtspBusy
from camserver.leases import Holder

HANDSHAKE_S = 5.0
Promise = Callable[[str, int, int], bool]
"""Promises to wait for a host: (its name, its epoch, our epoch as it knows it)."""
Lend = Callable[[bytes, tuple[str, ...]], Awaitable[dict[str, object]]]
"""Gives a lease to a program on another host: (the question, the names of the host)."""


class PeerServer:
    """The server for other hosts, between `start` and `stop`."""

    def __init__(
        self,
        address: tuple[str, int],
        tls: ssl.SSLContext,
        services: Services,
        reading: ReadRoutes,
        promise: Promise,
        lend: Lend,
    ) -> None:
        self._address = address
        self._tls = tls
        self._services = services
        self._promise_to = promise
        self._lend_to = lend
        app = web.Application(
            client_max_size=MAX_BODY_BYTES, middlewares=[_from_host, explain, known_parameters()]
        )
        app[CAPTURES] = CaptureRule(self._asker, _refused)
        app.add_routes(
            [
                *reading.routes(),
                web.post("/v1/cameras/{id}/snapshot", self._snapshot),
                web.post("/v1/cameras/{id}/relearn", self._relearn),
                web.post("/v1/fleet/promise", self._promise),
                web.post("/v1/fleet/lease", self._lend),
            ]
        )
        self._runner = web.AppRunner(
            app,
            handler_cancellation=True,
            access_log=None,
            keepalive_timeout=SILENT_S,
            shutdown_timeout=STOP_S,
        )
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen. Raises OSError."""
        await self._runner.setup()
        host, port = self._address
        assert self._runner.server is not None  # noqa: S101 - it has just been set up
        self._server = await asyncio.get_running_loop().create_server(
            self._runner.server,
            host or None,
            port,
            ssl=self._tls,
            ssl_handshake_timeout=HANDSHAKE_S,
            reuse_address=True,
            family=socket.AF_UNSPEC,
        )

    async def stop(self) -> None:
        """Close the socket and every connection."""
        if self._server is not None:
            self._server.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * STOP_S):
                await self._runner.cleanup()

    async def _snapshot(self, request: web.Request) -> web.Response:
        camera = self._services.polled_here(request)
        return await snapshot_answer(self._services, camera, self._asker(request))

    async def _relearn(self, request: web.Request) -> web.Response:
        return relearn_answer(self._services, request)

    def _asker(self, request: web.Request) -> Holder:
        return Holder("snapshot", f"host {', '.join(self._hosts(request))}")

    async def _promise(self, request: web.Request) -> web.Response:
        try:
            question = json.loads(await request.read())
            host, epochs = str(question["host"]), (int(question["epoch"]), int(question["yours"]))
        except (ValueError, KeyError, TypeError):
            raise refusal(web.HTTPBadRequest, "expected host, epoch and yours") from None
        if host not in self._hosts(request):
            raise refusal(web.HTTPForbidden, f"the certificate is not for host {host[:64]!r}")
        return web.json_response({"promised": self._promise_to(host, *epochs)})

    async def _lend(self, request: web.Request) -> web.Response:
        try:
            lent = await self._lend_to(await request.read(), self._hosts(request))
        except ValueError as error:
            raise refusal(web.HTTPBadRequest, str(error)) from None
        except PermissionError as error:
            raise refusal(
                web.HTTPForbidden, f"the certificate is not for host {str(error)[:64]!r}"
            ) from None
        except LookupError as error:
            raise refusal(web.HTTPNotFound, f"no enabled camera {str(error)[:64]}") from None
        except RtspBusy as busy:
            raise refusal(web.HTTPConflict, str(busy)) from None
        except NotOwnerError as error:
            raise refusal(web.HTTPMisdirectedRequest, str(error)) from None
        return web.json_response(lent)

    def _hosts(self, request: web.Request) -> tuple[str, ...]:
        transport = request.transport
        return _names_in(None if transport is None else transport.get_extra_info("peercert"))


def _refused(request: web.Request) -> str | None:
    if request.headers.get(CAPTURE_HEADER) == NO_CAPTURE:
        return "the host that was asked opens no session for this request"
    return None


@web.middleware
async def _from_host(request: web.Request, handler: Handler) -> web.StreamResponse:
    request[ASKED_BY_HOST] = True
    return await handler(request)


def _names_in(certificate: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The names for which a checked certificate is, as `ssl` gives it."""
    names = () if certificate is None else certificate.get("subjectAltName", ())
    return tuple(name for kind, name in names if kind == "DNS")
