"""Every way in which a camera can fail, and every place where something is said: no password."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from pathlib import Path
from urllib.parse import quote, quote_plus

import aiohttp
from desk import Desk, StartDaemon
from support import free_port, processes_of

from camserver.simulator.camera import FAULTS, Fault, SimulatedCamera
from camserver.simulator.snapshot_habits import OTHER_HABITS

PASSWORD = 'Zeb ra:@/#%?ü"{x}'
WALL = "Wall-Zebra-7"
LIBAV_KINDS = ("none", "silent", "damage", "status", "stall", "cut")
WEB_HABITS = ("json-login", "html-login", "busy", "cut", "multipart")
ARGUMENTS = {
    "stall": "stall:DESCRIBE",
    "status": "status:503:SETUP",
    "loss": "loss:0.3",
    "reorder": "reorder:0.3",
    "slow": "slow:2000",
    "reboot": "reboot:1:3",
}
FORMS = {
    PASSWORD,
    quote(PASSWORD, safe=""),
    quote(PASSWORD),
    quote_plus(PASSWORD),
    json.dumps(PASSWORD)[1:-1],
    repr(PASSWORD)[1:-1],
    base64.b64encode(f"viewer:{PASSWORD}".encode()).decode(),
    WALL,
    base64.b64encode(f"camserver:{WALL}".encode()).decode(),
}


def login(password: str) -> dict[str, str]:
    secret = base64.b64encode(f"camserver:{password}".encode()).decode()
    return {"Authorization": f"Basic {secret}", "X-Forwarded-For": password[:4]}


def cameras() -> list[SimulatedCamera]:
    keys = {"username": "viewer", "password": PASSWORD, "quirk": "kept-nonce"}
    found = [
        SimulatedCamera(
            f"f-{kind}", kind, gop=3, fault=Fault.parse(ARGUMENTS.get(kind, kind)), **keys
        )
        for kind in FAULTS
    ]
    libav = [
        SimulatedCamera(
            f"l-{kind}", kind, gop=3, fault=Fault.parse(ARGUMENTS.get(kind, kind)), **keys
        )
        for kind in LIBAV_KINDS
    ]
    wrong = SimulatedCamera("f-wrong", "wrong", username="viewer", password="another")
    refused = Fault("refuse")
    web = [
        SimulatedCamera(f"w-{habit}", habit, fault=refused, http_port=0, http_quirk=habit, **keys)
        for habit in (*WEB_HABITS, *OTHER_HABITS)
    ]
    return [*found, *libav, wrong, *web]


async def said(desk: Desk, address: str, pid: int) -> dict[str, bytes]:
    """What every place says, by its name."""
    found: dict[str, bytes] = {"log": desk.log.read_bytes()}
    for path in desk.output.rglob("*"):
        if path.is_file():
            found[str(path)] = path.read_bytes()
    found["journal"] = desk.socket.with_suffix(".leases").read_bytes()
    for process in (pid, *processes_of(pid)):
        for name in ("cmdline", "environ", "comm"):
            found[f"{name} of {process}"] = Path(f"/proc/{process}/{name}").read_bytes()
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(desk.socket))) as session:
        for route in (
            "/v1/cameras",
            "/v1/leases",
            "/metrics",
            "/healthz",
            "/v1/cameras/f-deaf",
            "/v1/cameras/f-stall/latest.jpg?max_age=1ms",
            "/v1/latest?max_age=1ms&wait=5s",
        ):
            async with session.get(f"http://x{route}") as answer:
                found[route] = await answer.read() + str(answer.headers).encode()
        async with session.post("http://x/v1/cameras/f-stall/snapshot") as answer:
            found["snapshot"] = await answer.read()
        async with session.get("http://x/v1/events", headers={"Last-Event-ID": "1"}) as answer:
            found["events"] = await answer.content.read(100_000)
    async with aiohttp.ClientSession(headers=login(WALL)) as session:
        for route in ("/", "/wall/wall.js", "/wall/site.json", "/v1/cameras"):
            async with session.get(f"http://{address}{route}") as answer:
                found[f"wall {route}"] = await answer.read() + str(answer.headers).encode()
        nonsense = "/v1/cameras/f-none/latest.jpg?width=" + "9" * 40
        async with session.get(f"http://{address}{nonsense}") as answer:
            found["wall nonsense"] = await answer.read()
    for command in (["check"], ["status"], ["status", "--json"], ["leases"], ["retention"]):
        found[" ".join(command)] = await ask(desk, *command)
    examined = ("f-wrong", "f-status", "l-none", "l-silent", "w-json-login")
    right = str(desk.config.with_name("right.toml"))
    answers = await asyncio.gather(
        *(ask(desk, "doctor", "--config", right, camera) for camera in examined)
    )
    return found | {f"doctor {name}": said for name, said in zip(examined, answers, strict=True)}


async def ask(desk: Desk, *command: str) -> bytes:
    config = [] if command[0] in ("leases", "doctor") else ["--config", str(desk.config)]
    process = await desk.run(*command, *config)
    return b"".join(await process.communicate())


async def test_no_password_is_said_anywhere_whatever_fails(
    tmp_path: Path, daemon: StartDaemon
) -> None:
    address = f"127.0.0.1:{free_port()}"
    fleet = cameras()
    desk = await daemon(
        fleet,
        http=f'{address}"\npassword = "{WALL}" #',
        more="[polling]\nopen_rate = 100\n[retention]\nmin_free = 0",
        timeout="3s",
        interval="1s",
    )
    desk.house.may_refuse_logins |= {"f-wrong"}
    text = desk.config.read_text()
    cut = text.index('id = "f-wrong"')
    right = json.dumps("another", ensure_ascii=False)
    assert right in text[cut:]
    text = text[:cut] + text[cut:].replace(right, json.dumps(PASSWORD), 1)
    desk.config.write_text(text.replace('id = "l-', 'engine = "libav"\nid = "l-'))
    results = {camera.id for camera in fleet}

    def all_tried() -> bool:
        polled = {c["id"] for c in desk.client.get("/v1/cameras") if c["latest"]}
        failed = [c for c in desk.client.get("/v1/cameras") if c["polling"]["failures"]]
        return polled == results and len(failed) >= 6

    await desk.until(all_tried, 120)
    # Faults of the inventory, the disk and the guesser
    text = desk.config.read_text()
    desk.config.with_name("right.toml").write_text(text)
    desk.config.write_text(text + f'[nonsense]\nx = "{WALL}"\n')
    await desk.until(lambda: "nonsense" in desk.log.read_text())
    async with aiohttp.ClientSession() as session:
        for _ in range(12):
            async with session.get(f"http://{address}/", headers=login(PASSWORD)) as answer:
                assert answer.status in (401, 429)
    pid = next(
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and str(desk.config) in _command(entry) and "run" in _command(entry)
    )
    places = await asyncio.wait_for(said(desk, address, pid), 200)
    assert len(places) > 40
    assert b"wrong username or password" in places["doctor f-wrong"]
    assert b"640x360 h264" in places["doctor l-none"]
    assert re.search(rb"poll.failed camera=l-silent", places["log"])
    for place, content in places.items():
        for form in FORMS:
            assert form.encode() not in content, f"{form!r} is in {place}"


def _command(entry: Path) -> str:
    try:
        return (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
