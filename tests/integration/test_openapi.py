"""The API's description says what the running server does: every route, every answer."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema
import pytest
from desk import Desk, StartDaemon, bare

from camserver.api import sse as stream
from camserver.api.control_routes import ControlRoutes
from camserver.api.sse import EventStream
from camserver.client import LeaseClient
from camserver.events import DaemonFault
from camserver.simulator.camera import Fault, SimulatedCamera


class Described:
    """Asks the running server, and holds each answer against the description it serves."""

    def __init__(self, session: aiohttp.ClientSession, description: dict[str, Any]) -> None:
        self.session = session
        self.description = description
        self.seen: set[tuple[str, str, str]] = set()
        self.path = ""

    async def ask(
        self, method: str, route: str, camera: str = "cam", **headers: str
    ) -> tuple[int, bytes]:
        path, _, query = route.partition("?")
        url = f"http://x{path.replace('{id}', camera).replace('{path}', self.path)}" + (
            f"?{query}" if query else ""
        )
        async with self.session.request(method, url, headers=headers) as answer:
            described = self.description["paths"][path][method.lower()]["responses"]
            response = self.resolve(described[str(answer.status)])
            self.seen.add((method, path, str(answer.status)))
            body = await answer.read()
            if content := response.get("content"):
                assert answer.content_type in content, route
                for line in _json_in(answer.content_type, body):
                    self.check(json.loads(line), content[answer.content_type]["schema"])
            return answer.status, body

    def resolve(self, part: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in part:
            found = self.description
            for name in part["$ref"].removeprefix("#/").split("/"):
                found = found[name]
            part = found
        return part

    def check(self, value: Any, schema: dict[str, Any]) -> None:
        jsonschema.Draft202012Validator(
            {"components": self.description["components"]} | schema
        ).validate(value)


def _json_in(kind: str, body: bytes) -> list[bytes]:
    if kind == "application/x-ndjson":
        return body.splitlines()
    return [body] if kind.endswith("json") else []


async def ask_what_can_be_read(api: Described, desk: Desk) -> None:
    for route in ("/healthz", "/v1/openapi.json", "/v1/cameras", "/v1/leases"):
        assert (await api.ask("GET", route))[0] == 200
    for route in ("/v1/cameras/{id}", "/v1/cameras/{id}/latest.jpg"):
        assert (await api.ask("GET", route))[0] == 200
        assert (await api.ask("GET", route, "other"))[0] == 404
    since = "Fri, 31 Dec 2100 00:00:00 GMT"
    assert (await api.ask("GET", "/v1/cameras/{id}/latest.jpg", **{"If-Modified-Since": since}))[
        0
    ] == 304
    await ask_for_young_pictures(api)
    day = desk.facts()["captured_at"][:10]
    archive = "/v1/cameras/{id}/archive"
    archived = json.loads((await api.ask("GET", f"{archive}?day={day}"))[1])
    assert (await api.ask("GET", f"{archive}?day=yesterday"))[0] == 400
    assert (await api.ask("GET", f"{archive}?day={day}", "other"))[0] == 404
    one = f"{archive}/{{path}}"
    api.path = archived[0]["path"]
    assert (await api.ask("GET", one))[0] == 200
    assert (await api.ask("GET", one + "?width=160"))[0] == 200
    assert (await api.ask("GET", one, **{"If-Modified-Since": since}))[0] == 304
    assert (await api.ask("GET", one + "?width=0"))[0] == 400
    api.path = "latest.jpg"
    assert (await api.ask("GET", one))[0] == 404
    assert (await api.ask("GET", "/v1/cameras/{id}/latest.jpg?width=-3"))[0] == 400
    assert (await api.ask("GET", "/metrics"))[0] == 200
    assert (await api.ask("GET", "/v1/fleet"))[0] == 404


async def ask_for_young_pictures(api: Described) -> None:
    for route in ("/v1/cameras/{id}/latest.jpg", "/v1/cameras/{id}/latest.json"):
        assert (await api.ask("GET", f"{route}?max_age=1h"))[0] == 200
        assert (await api.ask("GET", f"{route}?max_age=never"))[0] == 400
        assert (await api.ask("GET", f"{route}?max_age=1h", "bad"))[0] == 503
        assert (await api.ask("GET", f"{route}?max_age=1h", "other"))[0] == 404
    status, lines = await api.ask("GET", "/v1/latest?max_age=1h")
    assert (status, len(lines.splitlines())) == (200, 2)
    assert (await api.ask("GET", "/v1/latest?max_age=0"))[0] == 400
    assert (await api.ask("GET", "/v1/latest?cameras=x*"))[0] == 404
    # On TCP: test_max_age.py
    api.seen |= {("GET", f"/v1/cameras/{{id}}/latest.{kind}", "403") for kind in ("jpg", "json")}


async def ask_nonsense(session: aiohttp.ClientSession) -> None:
    async with session.get("http://x/v1/nothing") as answer:
        assert (answer.status, "error" in await answer.json()) == (404, True)
    async with session.delete("http://x/v1/cameras") as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "GET,HEAD")
    async with session.get("http://x/healthz", headers={"X": "y" * 100_000}) as answer:
        assert answer.status == 400


async def ask_what_acts(api: Described, desk: Desk) -> None:
    snapshot, lease = "/v1/cameras/{id}/snapshot", "/v1/cameras/{id}/lease"
    assert (await api.ask("POST", snapshot, "cam"))[0] == 200
    assert (await api.ask("POST", snapshot, "bad"))[0] == 502
    assert (await api.ask("POST", snapshot + "?label=%00"))[0] == 400
    assert (await api.ask("POST", snapshot, "other"))[0] == 404
    relearn = "/v1/cameras/{id}/relearn"
    assert (await api.ask("POST", relearn, "cam"))[0] == 200
    assert (await api.ask("POST", relearn, "other"))[0] == 404
    assert (await api.ask("POST", lease + "?ttl=never"))[0] == 400
    assert (await api.ask("POST", lease, "other"))[0] == 404
    async with LeaseClient(desk.socket).lease("cam", wait_s=30):
        status, body = await api.ask("POST", lease + "?wait=0")
        assert status == 409
        assert json.loads(body)["held"][0]["command"]
        assert (await api.ask("POST", snapshot))[0] == 409
    async with api.session.post(
        "http://x/v1/cameras/cam/lease?wait=30", data=_open_body()
    ) as answer:
        assert answer.content_type == "application/x-ndjson"
        api.check(
            json.loads(await answer.content.readline()),
            {"$ref": "#/components/schemas/LeaseLine"},
        )
    api.seen |= {
        ("POST", lease, "200"),
        ("POST", lease, "503"),
        ("GET", "/v1/fleet", "200"),  # in a fleet: test_fleet.py
        *(
            ("POST", f"/v1/fleet/{what}", status)
            for what in ("drain", "undrain", "hold", "release")
            for status in ("200", "404", "503")
        ),
        ("POST", "/v1/fleet/hold", "400"),
        ("GET", "/v1/events", "200"),  # 503: only at a stop
        ("POST", "/v1/retention/confirm", "503"),  # while the index can't be used
        ("POST", "/v1/cameras/{id}/snapshot", "503"),  # while no decoder is free
        ("POST", relearn, "503"),  # in a fleet, while no host has it
        ("GET", "/v1/cameras/{id}/latest.jpg", "502"),
        ("GET", "/v1/cameras/{id}/archive/{path}", "502"),
        ("GET", "/v1/cameras/{id}/archive/{path}", "503"),
    }


async def test_the_description_and_the_server_say_the_same(
    tmp_path: Path, daemon: StartDaemon
) -> None:
    desk = await daemon(
        [
            SimulatedCamera("cam", "Gate", gop=2),
            SimulatedCamera("bad", "Bad", fault=Fault("refuse")),
        ],
        interval="100s",
        lease_wait="2s",
        unclean_cooldown="300ms",
    )
    await desk.until(lambda: all(c["latest"] for c in desk.client.get("/v1/cameras")))
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(desk.socket))) as session:
        async with session.get("http://x/v1/openapi.json") as answer:
            api = Described(session, await answer.json())
        await ask_what_can_be_read(api, desk)
        await ask_what_acts(api, desk)
        assert (await api.ask("POST", "/v1/retention/confirm"))[0] == 200
        assert (await api.ask("POST", "/v1/reload"))[0] == 200
        desk.config.write_text("nonsense = 1\n" + desk.config.read_text())
        assert (await api.ask("POST", "/v1/reload"))[0] == 422
        await ask_nonsense(session)
        described = {
            (method.upper(), path, status)
            for path, item in api.description["paths"].items()
            for method, operation in item.items()
            if method in ("get", "post")
            for status in operation["responses"]
        }
        assert described == api.seen
        services, reading = bare(tmp_path, desk.house.manager)
        served = {
            (route.method, route.path.replace(":.+", ""))
            for part in (reading, ControlRoutes(services))
            for route in part.routes()
        }
        assert served == {(method, path) for method, path, _ in described} | {("GET", "/v1/events")}


async def _open_body() -> Any:
    yield b'{"end": "clean"}\n'


async def test_events_come_as_they_happen(tmp_path: Path, daemon: StartDaemon) -> None:
    """Dotted names, one JSON object each.

    One camera's alone if asked; a broken connection goes on where it ended.
    """
    desk = await daemon(interval="200ms")
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(desk.socket))) as session:
        async with session.get("http://x/v1/events?camera=cam") as answer:
            names, number = [], ""
            while names.count("snapshot.published") < 2:
                line = (await answer.content.readline()).decode().strip()
                number = line.removeprefix("id: ") if line.startswith("id: ") else number
                if line.startswith("data: "):
                    data = json.loads(line.removeprefix("data: "))
                    assert data["camera"] == "cam"
                    assert re.fullmatch(r"[a-z]+\.[a-z]+", data["event"])
                    # A busy machine is late now and then
                    if data["event"] not in ("poll.skipped", "camera.fresh"):
                        names.append(data["event"])
        assert names[-3:] in (
            ["lease.acquired", "snapshot.published", "lease.released"],
            ["lease.acquired", "lease.released", "snapshot.published"],
            ["lease.released", "lease.acquired", "snapshot.published"],
            ["snapshot.published", "lease.acquired", "snapshot.published"],
        )
        async with session.get(
            "http://x/v1/events", headers={"Last-Event-ID": str(int(number) - 2)}
        ) as answer:
            while not (line := await answer.content.readline()).startswith(b"id: "):
                pass
            assert line == b"id: %d\n" % (int(number) - 1)


@pytest.mark.parametrize("kept", [8])
def test_who_does_not_read_misses_events_and_is_told(
    kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "KEPT", kept)
    events = EventStream(lambda: lambda text: text.replace("secret", "***"))
    for number in range(20):
        events(DaemonFault(task=f"secret {number}", error=""))
    chunk, seen = events._since(3, None)
    assert seen == 20
    assert chunk.startswith(b"event: lost")
    assert chunk.count(b"daemon.fault") == 2 * kept
    assert b"secret" not in chunk
    assert events._since(19, None)[0].count(b"data: ") == 1
    assert events._since(19, "cam")[0] == b""
