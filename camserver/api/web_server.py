"""The wall page and the read-only routes on TCP, for browsers and Prometheus.

It owns the login and the HTTP headers.

It takes GET and HEAD. POST is taken only for "snapshot now", only with `[http] actions = true`, and
only from our own pages: the request needs a custom header. A browser sends it to another origin
only if a CORS preflight allows it, and we never allow it.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import math
import resource
import socket
import zlib
from collections.abc import Callable
from importlib.resources import files
from importlib.resources.abc import Traversable
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler
from cachetools import LRUCache

from camserver.api.addresses import is_address, is_loopback, network_of
from camserver.api.captures import CAPTURES, CaptureRule
from camserver.api.forward import READING, forwarding
from camserver.api.listener import MAX_BODY_BYTES, SILENT_S, HttpListener, explain
from camserver.api.login_limit import (
    MAX_CLIENTS,
    TRIES_OF_ALL,
    TRY_OF_ALL_EVERY_S,
    LoginLimit,
)
from camserver.api.parameters import known_parameters
from camserver.api.read_routes import ReadRoutes
from camserver.api.responses import Services, refusal
from camserver.config import Inventory
from camserver.errors import CamserverError, NotPolledError
from camserver.events import Event, WrongLogins
from camserver.leases import Holder

MAX_CONNECTIONS = 2048
OWN_PAGES = ("same-origin", "none")
"""What a browser says in Sec-Fetch-Site of our own pages, and of an address that a person opens."""
ACTION_HEADER = "X-Camserver-Action"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'; frame-src {frames}"
)
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
KINDS = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}


class WebUnavailable(CamserverError):  # noqa: N818 - the name states the condition
    """Raised when we cannot listen on the address; the message says why."""


class WebServer:
    """The wall page on the inventory's http.listen, between `start` and `stop`."""

    def __init__(
        self,
        inventory: Inventory,
        services: Services,
        reading: ReadRoutes,
        emit: Callable[[Event], None] = lambda _: None,
        *,
        silent_s: float = SILENT_S,
    ) -> None:
        self._table = table = inventory.http
        self._emit = emit
        self._logins = LoginLimit()
        self._all_logins = LoginLimit(TRIES_OF_ALL, TRY_OF_ALL_EVERY_S)
        self._logged_in: LRUCache[tuple[str, bytes], bool] = LRUCache(MAX_CLIENTS)
        self._services = services
        self.configure(inventory)
        app = web.Application(
            client_max_size=MAX_BODY_BYTES,
            middlewares=[
                self._guard,
                explain,
                known_parameters(),
                forwarding(services, methods=READING),
            ],
        )
        app[CAPTURES] = CaptureRule(_asker, self._why_no_capture)
        app.on_response_prepare.append(self._mark)
        app.add_routes(
            [
                *reading.routes(),
                web.get("/wall/site.json", self._site),
                *(web.get(f"/{name}", _file(path)) for name, path in _wall()),
            ]
        )
        if table.actions:
            app.add_routes([web.post("/v1/cameras/{id}/snapshot", self._snapshot)])
        # Browsers must not use up the file descriptors that cameras and pictures need.
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._listener = HttpListener(
            app, connections=min(MAX_CONNECTIONS, files // 3), silent_s=silent_s
        )
        self.address: tuple[str, int] | None = None

    def configure(self, inventory: Inventory) -> tuple[str, ...]:
        """Apply what a reload can change. Return the changed keys that need a restart."""
        new, running = inventory.http, self._table
        self._timezone = inventory.output.timezone
        self._hosts = {
            "localhost",
            socket.gethostname().lower(),
            *(host.lower() for host in new.hosts),
            *([running.address[0].lower()] if running.address else []),
        }
        player = inventory.go2rtc.page or inventory.go2rtc.api
        self._go2rtc = player.rstrip("/") if player else None
        frames = "'none'" if player is None else "{0.scheme}://{0.netloc}".format(urlsplit(player))
        self._headers = HEADERS | {"Content-Security-Policy": POLICY.format(frames=frames)}
        changed = {
            "http.listen": new.listen != running.listen,
            "http.username": new.username != running.username,
            "http.password": new.password != running.password,
            "http.actions": new.actions != running.actions,
        }
        return tuple(key for key, is_changed in changed.items() if is_changed)

    async def start(self) -> None:
        """Listen. Raises WebUnavailable."""
        if self._table.address is None:
            return
        host, port = self._table.address
        try:
            infos = await asyncio.get_running_loop().getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            family, kind, protocol, _, address = infos[0]
            sock = socket.socket(family, kind, protocol)
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind(address)
                sock.setblocking(False)
            except BaseException:
                sock.close()
                raise
        except OSError as error:
            raise WebUnavailable(f"{self._table.listen}: {error.strerror}") from None
        self.address = sock.getsockname()[:2]
        await self._listener.open(sock)

    async def stop(self) -> None:
        """Close the socket and every connection."""
        await self._listener.close()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Check the login; without a login check the Host header.

        /healthz needs no login: it is for load balancers. Without a login, a foreign page could
        otherwise reach us under a DNS name of its own that points to our address (DNS rebinding).
        """
        table = self._table
        try:
            host = urlsplit(f"//{request.host}").hostname or ""
        except ValueError:
            raise refusal(web.HTTPBadRequest, "the Host header names no host") from None
        if table.password is None and not is_address(host) and host not in self._hosts:
            raise refusal(web.HTTPForbidden, f"the name {host[:80]!r} is not in [http] hosts")
        if table.password is not None and request.path != "/healthz":
            self._check_login(request, table.username, table.password)
        return await handler(request)

    def _check_login(self, request: web.Request, username: str, password: str) -> None:
        """Raise 401 for a wrong login, and 429 for an address that has sent too many of them."""
        header = request.headers.get("Authorization")
        address, now = _address_of(request), asyncio.get_running_loop().time()
        if header is not None:
            # Who has logged in does not wait for others behind the same proxy
            known = network_of(address), hashlib.sha256(header.encode()).digest()
            if known in self._logged_in and _is_right(header, username, password):
                return
            wait_s = max(self._logins.wait_s(address, now), self._all_logins.wait_s("", now))
            if wait_s > 0:
                error = refusal(
                    web.HTTPTooManyRequests, f"too many wrong logins: wait {wait_s:.0f} s"
                )
                error.headers["Retry-After"] = str(math.ceil(wait_s))
                raise error
            if _is_right(header, username, password):
                self._logged_in[known] = True
                return
            self._all_logins.count_wrong("", now)
            if (count := self._logins.count_wrong(address, now)) is not None:
                self._emit(WrongLogins(address=address, count=count))
        error = refusal(web.HTTPUnauthorized, "username and password, please")
        error.headers["WWW-Authenticate"] = 'Basic realm="camserver", charset="UTF-8"'
        raise error

    def _why_no_capture(self, request: web.Request) -> str | None:
        """Say why `max_age` must not open a session for this request, or None when it may."""
        if not self._table.actions:
            return "on this port pictures are taken only with [http] actions = true"
        if self._table.password is None:
            return "on this port pictures are taken only with a login: [http] has no password"
        # A browser sends its login for another site's page, too. Over plain http it does not say
        # for which one.
        is_browser = request.headers.get("User-Agent", "").startswith("Mozilla/")
        site = request.headers.get("Sec-Fetch-Site", "unknown" if is_browser else "none")
        referrers = (request.headers.get(name) for name in ("Origin", "Referer"))
        foreign = any(r and urlsplit(r).netloc != request.host for r in referrers)
        if site not in OWN_PAGES or foreign:
            return "no picture is taken for a page of another site"
        return None

    async def _mark(self, _: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(self._headers)
        response.headers.pop("Server", None)

    async def _site(self, _: web.Request) -> web.Response:
        """Answer with the settings of the page: actions, go2rtc's URL, time zone."""
        return web.json_response(
            {"actions": self._table.actions, "go2rtc": self._go2rtc, "timezone": self._timezone}
        )

    async def _snapshot(self, request: web.Request) -> web.Response:
        origin = request.headers.get("Origin")
        if request.headers.get(ACTION_HEADER) != "snapshot" or (
            origin and urlsplit(origin).netloc != request.host
        ):
            raise refusal(web.HTTPForbidden, f"the header {ACTION_HEADER}: snapshot is missing")
        fleet = self._services.fleet
        if fleet is not None:
            elsewhere = await fleet.snapshot(self._services.wanted(request))
            if elsewhere is not None:
                result, error = elsewhere
                return web.json_response({"result": result, "error": error})
        camera = self._services.polled_here(request)
        try:
            attempt = await self._services.on_demand.snapshot(
                camera, Holder("snapshot", "wall page")
            )
        except NotPolledError as error:
            raise refusal(web.HTTPServiceUnavailable, str(error)) from None
        return web.json_response({"result": attempt.result, "error": attempt.error})


def _asker(_: web.Request) -> Holder:
    return Holder("snapshot", "web")


def _is_right(header: str, username: str, password: str) -> bool:
    scheme, _, token = header.partition(" ")
    try:
        name, _, given = base64.b64decode(token.strip(), validate=True).partition(b":")
    except ValueError:
        return False
    # Both are compared in any case: the time must not tell which one is wrong
    right_name = hmac.compare_digest(name, username.encode())
    right_password = hmac.compare_digest(given, password.encode())
    return scheme.lower() == "basic" and right_name and right_password


def _address_of(request: web.Request) -> str:
    """Return the address of the client, also behind a proxy on this machine."""
    peer = request.remote or ""
    if is_loopback(peer):
        # The last entry is the proxy's own; a client can write only the ones before it
        entries = ",".join(request.headers.getall("X-Forwarded-For", ())).split(",")
        if is_address(entries[-1].strip()):
            return entries[-1].strip()
    return peer


def _wall() -> list[tuple[str, Traversable]]:
    """Return (URL path, file) of each file of the page; the page itself is at /.

    Browsers ask for /favicon.ico when they show a picture without a page.
    """
    found = {
        p.name: p
        for p in (files("camserver.api") / "wall").iterdir()
        if p.name.endswith(tuple(KINDS))
    }
    return [
        ("favicon.ico", found["icon.svg"]),
        *(("" if name == "index.html" else f"wall/{name}", path) for name, path in found.items()),
    ]


def _file(path: Traversable) -> Handler:
    body = path.read_bytes()
    kind = KINDS[path.name[path.name.rindex(".") :]]
    etag = f"{zlib.crc32(body):x}-{len(body):x}"

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.Response(
            content_type=kind, charset="utf-8", headers={"Cache-Control": "no-cache"}
        )
        response.etag = etag
        if any(known.value == etag for known in request.if_none_match or ()):
            response.set_status(304)
        else:
            response.body = body
        return response

    return answer
