"""Requests for a camera that another host of the fleet polls: that host answers them.

One host asks at most one other host: the listener for other hosts does not forward.
"""

from __future__ import annotations

from collections.abc import Collection

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from camserver.api.captures import passed_on
from camserver.api.max_age import AgeLimit
from camserver.api.responses import Services

READING = frozenset(("GET", "HEAD"))
METHODS = READING | {"POST"}
FORWARDED = frozenset(
    (
        "/v1/cameras/{id}",
        "/v1/cameras/{id}/latest.jpg",
        "/v1/cameras/{id}/latest.json",
        "/v1/cameras/{id}/archive",
        "/v1/cameras/{id}/archive/{path}",
        "/v1/cameras/{id}/snapshot",
        "/v1/cameras/{id}/relearn",
    )
)


def forwarding(services: Services, *, methods: Collection[str] = METHODS) -> Middleware:
    """Return the middleware. When the owner cannot be asked, this host says what it knows.

    The web server forwards only reading: it checks itself who may act.
    """

    @web.middleware
    async def forward(request: web.Request, handler: Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        is_forwarded = resource is not None and resource.canonical in FORWARDED
        if services.fleet is None or not is_forwarded or request.method not in methods:
            return await handler(request)
        camera = services.wanted(request)
        owner = services.fleet.owner_of(camera.device)
        if owner and not services.fleet.owns(camera.device):
            limit = AgeLimit.of(request)
            wait_s = 0.0 if limit is None else limit.wait_for(camera)
            answer = await services.fleet.relay(owner, request, passed_on(request), wait_s)
            if answer is not None:
                return answer
        return await handler(request)

    return forward
