"""Two cameras, one of which has a fault, and plain HTTP requests to the wall's server."""

from __future__ import annotations

from urllib.error import HTTPError
from urllib.request import Request, urlopen

from camserver.simulator.camera import Fault, SimulatedCamera


def fleet() -> list[SimulatedCamera]:
    return [
        SimulatedCamera("cam", "Gate", gop=2),
        SimulatedCamera("bad", "Bad", fault=Fault("refuse")),
    ]


def ask(
    address: str, path: str, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    try:
        with urlopen(
            Request(f"http://{address}{path}", method=method, headers=headers), timeout=20
        ) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except HTTPError as error:
        return error.code, dict(error.headers), error.read()
