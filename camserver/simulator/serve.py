"""Run `camserver simulate`: a fleet that runs until it is stopped, and writes its record."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from camserver.simulator.camera import CODECS, Fault, SimulatedCamera
from camserver.simulator.fleet import Fleet

RECORD_S = 0.5
NAMES = ("Gate", "Yard", "Harbour", "Workshop", "Roof", "Garden")


@dataclass(frozen=True, slots=True)
class SimulateOptions:
    """The options of `camserver simulate`. `faults` are by camera id, "*" is for all cameras."""

    cameras: int = 6
    host: str = "127.0.0.1"
    base_port: int = 8554
    codec: str = "mixed"
    size: tuple[int, int] = (640, 360)
    fps: float = 10.0
    gop: int = 20
    max_sessions: int = 1
    cooldown_s: float = 0.0
    unclean_cooldown_s: float = 0.0
    full_voice: str = "453"
    username: str = ""
    password: str = field(default="", repr=False)
    auth: str = "digest"
    faults: dict[str, Fault] = field(default_factory=dict)
    quirk: str = ""
    snapshot_url: str | None = None
    """The habits of the cameras' snapshot URLs, joined by "+". None: they have none."""
    tls: tuple[Path, Path] | None = None
    record: Path | None = None
    inventory: Path | None = None
    interval: str = "5s"
    output: Path | None = None
    """With `inventory`: the folder for pictures and the socket."""
    seconds: float | None = None
    until_eof: bool = False


def make_cameras(options: SimulateOptions) -> list[SimulatedCamera]:
    """The cameras, cam1 to camN.

    Raises ValueError when a fault is for a camera that does not exist, or when there are too few
    ports above the base port.
    """
    width, height = options.size
    cameras = [
        SimulatedCamera(
            f"cam{n + 1}",
            NAMES[n] if n < len(NAMES) else f"Camera {n + 1}",
            CODECS[n % len(CODECS)] if options.codec == "mixed" else options.codec,
            width,
            height,
            options.fps,
            options.gop,
            options.max_sessions,
            options.cooldown_s,
            options.unclean_cooldown_s,
            options.username,
            options.password,
            options.auth,
            full_voice=options.full_voice,
            port=options.base_port + n if options.base_port else 0,
            fault=options.faults.get(f"cam{n + 1}", options.faults.get("*", Fault())),
            quirk=options.quirk,
            http_quirk=options.snapshot_url or "",
            http_port=_http_port(options, n),
        )
        for n in range(options.cameras)
    ]
    strangers = options.faults.keys() - {"*"} - {c.id for c in cameras}
    last = max(cameras[-1].port, cameras[-1].http_port or 0)
    if last > 65535:
        ports = last - options.base_port + 1
        raise ValueError(f"--base-port: {ports} ports from {options.base_port} on are too many")
    if strangers:
        raise ValueError(
            f"--fault: there is no {', '.join(sorted(strangers))}; cameras are cam1 to"
            f" cam{options.cameras}"
        )
    return cameras


def _http_port(options: SimulateOptions, number: int) -> int | None:
    """The port of a camera's snapshot URL: they follow those of the streams."""
    if options.snapshot_url is None:
        return None
    return options.base_port + options.cameras + number if options.base_port else 0


async def serve(options: SimulateOptions) -> int:
    """Serve until SIGINT, SIGTERM or the end of `seconds`. The record is also written at the end.

    With `until_eof` the end of stdin also stops it.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if options.until_eof:  # when the parent dies in any way, the pipe is closed
        loop.add_reader(0, lambda: None if os.read(0, 4096) else stop.set())
    tls = None
    if options.tls is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*options.tls)
    fleet = Fleet(make_cameras(options), host=options.host, tls=tls)
    await fleet.start()
    if options.inventory is not None:
        _replace(
            options.inventory, _tables(options.output) + fleet.inventory(interval=options.interval)
        )
    for camera in list(fleet.cameras.values())[:12]:
        fault = f", {camera.fault.kind}" if camera.fault.kind != "none" else ""
        print(  # noqa: T201 - the command's output
            f"{camera.id}  {fleet.url(camera.id)}  {camera.codec}"
            f" {camera.width}x{camera.height}{fault}"
        )
    # The command's output, so T201 does not apply
    print(f"{len(fleet.cameras)} cameras are ready; Ctrl-C ends them", flush=True)  # noqa: T201
    ends_at = None if options.seconds is None else loop.time() + options.seconds
    while not stop.is_set() and (ends_at is None or loop.time() < ends_at):
        _write_record(options.record, fleet)
        try:
            async with asyncio.timeout(
                RECORD_S if ends_at is None else min(RECORD_S, ends_at - loop.time())
            ):
                await stop.wait()
        except TimeoutError:
            continue
    _write_record(options.record, fleet)
    await fleet.stop()
    return 0


def _tables(output: Path | None) -> str:
    """The tables for the pictures and the socket.

    They are for a user who cannot write to the system's folders.
    """
    if output is None:
        return ""
    folder = output.absolute()
    return (
        f"[output]\ndirectory = {json.dumps(str(folder / 'snapshots'))}\n"
        f"[api]\nsocket = {json.dumps(str(folder / 'camserver.sock'))}\n\n"
    )


def _write_record(path: Path | None, fleet: Fleet) -> None:
    if path is not None:
        _replace(path, json.dumps(fleet.records(), indent=1) + "\n")


def _replace(path: Path, text: str) -> None:
    """Write a file atomically. Only its owner can read it, because it may contain passwords."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.touch(0o600)
    temporary.write_text(text)
    temporary.replace(path)
