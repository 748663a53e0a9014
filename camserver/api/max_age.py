"""The freshness contract: `max_age`, `wait` and `stale` of a request, and the answer when it fails.

    GET /v1/cameras/gate/latest.jpg?max_age=5s&wait=10s

The answer is a picture that was no older than `max_age` when it was asked for. Otherwise it is a
problem document (RFC 9457) that says why there is none, or the old picture with `stale=ok`.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from aiohttp import web

from camserver.api.captures import CAPTURES
from camserver.api.responses import MAX_WAIT_S, Services, refusal
from camserver.config import Camera
from camserver.config.units import parse_duration
from camserver.polling.on_demand import ASK_AGAIN_S, NotFresh, default_wait_s

PROBLEM = "application/problem+json"
NOT_FRESH, NOT_ALLOWED = "urn:camserver:not-fresh", "urn:camserver:capture-not-allowed"
TITLES = {
    NOT_FRESH: "no picture that is young enough",
    NOT_ALLOWED: "no picture that is young enough, and none may be taken for this request",
}


@dataclass(frozen=True, slots=True)
class AgeLimit:
    """How old a picture may be, and what to do for a newer one. Times are in seconds."""

    max_age_s: float
    wait_s: float | None = None
    """None: as long as one poll of the camera may take."""
    stale_ok: bool = False

    @classmethod
    def of(cls, request: web.Request) -> AgeLimit | None:
        """The limit of a request, or None when any age will do. Raises 400."""
        query = request.query
        if "max_age" not in query:
            for name in ("wait", "stale"):
                if name in query:
                    raise refusal(web.HTTPBadRequest, f"{name}: needs max_age")
            return None
        if query.get("stale", "ok") != "ok":
            raise refusal(web.HTTPBadRequest, 'stale: expected "ok"')
        max_age_s = _duration(request, "max_age")
        if max_age_s == 0:
            raise refusal(web.HTTPBadRequest, "max_age: expected more than 0")
        wait_s = _duration(request, "wait") if "wait" in query else None
        if wait_s is not None and wait_s > MAX_WAIT_S:
            raise refusal(web.HTTPBadRequest, f"wait: expected at most {MAX_WAIT_S:g} s")
        return cls(max_age_s, wait_s, "stale" in query)

    def wait_for(self, camera: Camera) -> float:
        """How many seconds to wait for a picture of a camera."""
        return default_wait_s(camera) if self.wait_s is None else self.wait_s


async def missed(
    services: Services, request: web.Request, camera: Camera, limit: AgeLimit
) -> NotFresh | None:
    """Make sure that the camera's newest picture meets the limit. Return why it does not, or None.

    A picture is taken if that is needed, and if it may be taken for this request.
    """
    if services.on_demand.is_young(camera.id, limit.max_age_s):
        return None
    rule = request.app[CAPTURES]
    if (why := rule.refused(request)) is not None:
        return NotFresh(f"{camera.id}: {why}", 0.0, may_capture=False)
    if not services.polls_here(camera):
        return NotFresh(services.why_not_here(camera), ASK_AGAIN_S)
    return await services.on_demand.refresh(
        camera, limit.max_age_s, limit.wait_for(camera), lambda: rule.asker(request)
    )


async def ensure(services: Services, request: web.Request, camera: Camera) -> None:
    """Let the request go on if its limit is met, or if there is none. Raises 400, 403, 503."""
    limit = AgeLimit.of(request)
    why = None if limit is None else await missed(services, request, camera, limit)
    if limit is None or why is None:
        return
    if not limit.stale_ok or services.outcomes.age_s(camera.id) is None:
        raise _not_fresh(services, camera, why)


def facts_of_missing(services: Services, camera: Camera, why: NotFresh) -> dict[str, object]:
    """Return what a program wants to know of a picture that is missing."""
    age_s, known = services.outcomes.age_s(camera.id), services.outcomes.get(camera.id)
    return {
        "camera": camera.id,
        "age_s": None if age_s is None else round(age_s, 3),
        "captured_at": known and known.picture["captured_at"],
        "result": why.result,
        "retry_after_s": round(why.retry_after_s, 3) if why.may_capture else None,
    }


def _not_fresh(services: Services, camera: Camera, why: NotFresh) -> web.HTTPException:
    """Return the 503 or 403 that says why there is no picture, and how old the last one is."""
    kind: type[web.HTTPException] = (
        web.HTTPServiceUnavailable if why.may_capture else web.HTTPForbidden
    )
    type_ = NOT_FRESH if why.may_capture else NOT_ALLOWED
    error = kind(content_type=PROBLEM)
    document = {
        "type": type_,
        "title": TITLES[type_],
        "status": error.status,
        "detail": why.reason,
        **facts_of_missing(services, camera, why),
    }
    error.text = json.dumps(document) + "\n"
    error.content_type = PROBLEM
    if why.may_capture:
        error.headers["Retry-After"] = str(math.ceil(why.retry_after_s))
    return error


def _duration(request: web.Request, name: str) -> float:
    """Return a duration of the query in seconds. Raises 400."""
    try:
        return parse_duration(request.query[name])
    except ValueError as error:
        raise refusal(web.HTTPBadRequest, f"{name}: {error}") from None
