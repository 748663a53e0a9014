"""Query parameters: a route takes those that openapi.json describes, each at most once.

Other parameters are refused, not ignored.
"""

from __future__ import annotations

import difflib
import json
from importlib.resources import files
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from camserver.api.responses import refusal


def described() -> dict[tuple[str, str], frozenset[str]]:
    """Return the names of the query parameters of each (method, path) in openapi.json."""
    document = json.loads((files("camserver.api") / "openapi.json").read_text())
    found = {}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method == "parameters":
                continue
            parameters = [
                _resolved(document, p)
                for p in (*item.get("parameters", ()), *operation.get("parameters", ()))
            ]
            found[method.upper(), path] = frozenset(
                p["name"] for p in parameters if p["in"] == "query"
            )
    return found


def _resolved(document: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in part:
        return part
    found: dict[str, Any] = document["components"]["parameters"][part["$ref"].rpartition("/")[2]]
    return found


def known_parameters() -> Any:
    """Return middleware that answers 400 to a query parameter that a route does not take.

    Only routes under /v1/ are checked: Prometheus may send its own parameters to /metrics.
    """
    allowed = described()

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        method = "GET" if request.method == "HEAD" else request.method
        names = allowed.get((method, resource.canonical if resource is not None else ""))
        if names is not None and request.path.startswith("/v1/"):
            for name in request.query:
                if name not in names:
                    raise refusal(
                        web.HTTPBadRequest, f"{_shown(name)}: unknown parameter{_hint(name, names)}"
                    )
                if len(request.query.getall(name)) > 1:
                    raise refusal(web.HTTPBadRequest, f"{name}: given more than once")
        return await handler(request)

    return check


def _shown(name: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in name[:64])


def _hint(name: str, names: frozenset[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f" (did you mean {close[0]}?)"
    return f" (there is {', '.join(sorted(names))})" if names else " (there is none)"
