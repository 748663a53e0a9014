"""`camserver doctor`: which cameras are examined, how many at once, and how results are printed."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import getpass
import json
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from camserver.capture.build import Capture, build_capture
from camserver.cli.daemon_commands import EX_CONFIG, EX_NOPERM, EX_TEMPFAIL, EX_UNAVAILABLE, client
from camserver.cli.doctor_leases import LeaseLost, doctor_leases
from camserver.cli.inventory import read_inventory
from camserver.client import ApiRefusal, DaemonUnavailableError, SyncLeaseClient
from camserver.config import Camera, Inventory, camera_from
from camserver.doctor.examination import Doctor
from camserver.doctor.report import Finding, Report
from camserver.errors import InventoryError, InventoryTimeout, RtspBusy
from camserver.host.loop import run_loop
from camserver.host.redact import Redactor

AT_ONCE = 8
"""Cameras that are examined at once, each at another address (host and port)."""
DECODERS = 2
QUALITY = 85
NAMED = 8
"""Ids that are printed, at most, before advice that is the same for several cameras."""


class WrongUsage(Exception):  # noqa: N818 - the name states the condition
    """Raised when the command line names no camera that can be examined."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to examine: cameras, and the inventory whose leases and locks apply.

    `many`: a line for each camera instead of each step. `known`: the cameras are in the inventory.
    """

    cameras: tuple[Camera, ...]
    inventory: Inventory | None
    many: bool = False
    known: bool = True


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result for one camera.

    Without a report the camera could not be examined; then `error` says why. `status` is the exit
    status for this camera.
    """

    camera: Camera
    report: Report | None = None
    error: str = ""
    status: int = 0


def doctor(arguments: argparse.Namespace) -> int:
    """Examine cameras under leases.

    Returns 0 when every camera gives pictures, 1 when one does not, 75 when its sessions are taken.
    """
    try:
        order = _order(arguments)
    except WrongUsage as error:
        print(f"camserver doctor: {error}", file=sys.stderr)
        return 2
    except InventoryError as error:
        for fault in error.faults:
            print(f"camserver doctor: {fault}", file=sys.stderr)
        if isinstance(error, InventoryTimeout):
            return EX_TEMPFAIL
        return 2 if "://" in (arguments.camera or "") else EX_CONFIG
    try:
        return run_loop(lambda: (_many if order.many else _one)(arguments, order))
    except asyncio.CancelledError:  # SIGTERM; the sessions are closed
        return 143


# ---- what to examine


def _order(arguments: argparse.Namespace) -> Order:
    """Return what the command line asks for. Raises InventoryError, WrongUsage."""
    wanted: str = arguments.camera or ""
    if "://" in wanted:
        if arguments.all:
            raise WrongUsage("--all examines the inventory; it takes no URL")
        return _order_of_url(arguments, wanted)
    if arguments.username is not None:
        raise WrongUsage("--username goes with a URL; a camera of the inventory has its own")
    if arguments.all and wanted:
        raise WrongUsage("--all examines every camera; it takes no other")
    if not arguments.all and not wanted:
        raise WrongUsage("expected a camera's id, a URL, an inventory FILE, or --all")
    if wanted.endswith(".toml") or "/" in wanted:
        # This inventory's [api] socket and output directory decide where the leases are.
        arguments.config = Path(wanted)
        wanted = ""
    inventory = read_inventory(arguments.config)
    if not wanted:
        if not inventory.cameras:
            raise WrongUsage(f"no enabled camera in {arguments.config}")
        return Order(inventory.cameras, inventory, many=True)
    found = tuple(c for c in inventory.cameras if c.id == wanted)
    if not found:
        raise WrongUsage(f"no enabled camera {wanted!r} in {arguments.config}")
    return Order(found, inventory)


def _order_of_url(arguments: argparse.Namespace, wanted: str) -> Order:
    if any("\udc80" <= character <= "\udcff" for character in wanted):
        raise WrongUsage("the URL is not UTF-8 text")
    if not wanted.lower().startswith(("rtsp://", "rtsps://", "http://", "https://")):
        raise WrongUsage("expected a URL that begins with rtsp://, rtsps://, http:// or https://")
    url, user, password = split_login(wanted)
    if arguments.username is not None:
        if user:
            raise WrongUsage("the URL has a username already")
        user = arguments.username
    if user and password is None:
        password = _asked_password(user, script=arguments.username is not None)
        if not password:  # an empty password would be sent, and count as a wrong login
            raise WrongUsage(f"no password was given for {user}")
    keys = {"id": "camera", "snapshot_url" if url.lower().startswith("http") else "url": url}
    camera = camera_from(
        keys | ({"username": user} if user else {}) | ({"password": password} if password else {})
    )
    inventory = None
    with contextlib.suppress(InventoryError):
        inventory = read_inventory(arguments.config)
    return Order((camera,), inventory, known=False)


def split_login(url: str) -> tuple[str, str, str | None]:
    """Return (URL without login, username, password) of a URL as people write it.

    The password may contain @, #, ? and any letter. It is None when there is none.

    The login ends at the last @ before the path. If there is no @ before the first /, and the text
    there is no host and port, the login ends at the last @ of the URL. A URL without a / may have
    an @ in its query. Escapes such as %40 are decoded.

    Raises WrongUsage when a / and an @ make it unclear where the password ends.
    """
    scheme, _, rest = url.partition("://")
    authority = rest.partition("/")[0]
    beginning, *end = re.split("[?#]", authority, maxsplit=1)
    is_query = "/" not in rest and "=" in "".join(end)
    if "@" not in rest or (_is_address(beginning) and ("@" not in authority or is_query)):
        return url, "", None
    if "@" in authority:
        login = authority.rpartition("@")[0]
        host = rest[len(login) + 1 :]
        # This @ may belong to the password or to the path. Part of a password must not be used as
        # a host name.
        if "@" in host:
            raise WrongUsage(
                "there is a / in the password, or an @ in the path: use --username, or write %2F"
                " and %40"
            )
    else:
        login, _, host = rest.rpartition("@")
    user, colon, password = login.partition(":")
    return f"{scheme}://{host}", unquote(user), unquote(password) if colon else None


def _is_address(text: str) -> bool:
    """Return whether `text` is a host, or a host and a port: then it contains no login."""
    host, colon, port = text.rpartition(":")
    return "@" not in text and (
        not colon or text.endswith("]") or (port.isascii() and port.isdigit() and bool(host))
    )


def _asked_password(user: str, *, script: bool) -> str | None:
    """Return the password, asked for on a terminal, or read from stdin for a `script`.

    None when there is none. It is no command-line argument, because every user can see those
    (ps(1)). Raises WrongUsage.
    """
    if sys.stdin is None:
        return None
    if sys.stdin.isatty():
        try:
            return getpass.getpass(f"password of {user}: ")
        except EOFError:
            return None
    try:
        return sys.stdin.buffer.readline().decode().rstrip("\r\n") if script else None
    except UnicodeDecodeError:
        raise WrongUsage("the password on stdin is not UTF-8 text") from None


# ---- one camera


async def _one(arguments: argparse.Namespace, order: Order) -> int:
    def say(finding: Finding) -> None:
        if not arguments.json:
            took = "" if finding.ms is None else f"  ({finding.ms:.0f} ms)"
            print(
                f"{'ok  ' if finding.ok else 'FAIL'}  {finding.step:12}  {finding.text}{took}",
                flush=True,
            )
            if finding.advice:
                print(f"      {finding.advice}")

    async with build_capture(QUALITY) as capture:
        outcome = await _examined(arguments, order, order.cameras[0], capture, say)
    if outcome.report is None:
        print(f"camserver: {outcome.error}", file=sys.stderr)
        return outcome.status
    print(outcome.report.json() if arguments.json else f"\n{outcome.report.toml()}".rstrip("\n"))
    return outcome.status


# ---- many cameras


async def _many(arguments: argparse.Namespace, order: Order) -> int:
    """Print a line for each camera when it is done, then advice for the cameras that fail."""
    # Cameras at one address share accounts, so they are examined one after the other.
    boxes: dict[str, list[Camera]] = {}
    for camera in order.cameras:
        boxes.setdefault(camera.address, []).append(camera)
    turns, outcomes = asyncio.Semaphore(AT_ONCE), dict[str, Outcome]()
    width = max((len(camera.id) for camera in order.cameras), default=0)

    async def examine(cameras: list[Camera]) -> None:
        # Logins that this address has refused, with the id of the camera
        refused: dict[tuple[str, str], str] = {}
        for camera in cameras:
            login = camera.username, camera.password
            async with turns:
                if login in refused:
                    outcome = Outcome(
                        camera,
                        error=(
                            f"not tried: {refused[login]} at the same address has refused this"
                            " login, and cameras lock accounts"
                        ),
                        status=1,
                    )
                else:
                    outcome = await _examined(arguments, order, camera, capture, lambda _: None)
            if outcome.report is not None and outcome.report.login_refused:
                refused[login] = camera.id
            outcomes[camera.id] = outcome
            if not arguments.json:
                print(
                    f"{'FAIL' if outcome.status else 'ok  '}  {camera.id:{width}} "
                    f" {_line(outcome)}",
                    flush=True,
                )

    try:
        many = build_capture(QUALITY, sessions=DECODERS, decoders=DECODERS)
        async with many as capture, asyncio.TaskGroup() as tasks:
            for address, cameras in boxes.items():
                tasks.create_task(examine(cameras), name=f"doctor {address}")
    except ExceptionGroup as group:  # stdout is closed, or the disk is full: all have this reason
        raise group.exceptions[0] from None
    told = [outcomes[camera.id] for camera in order.cameras]
    failed = [outcome for outcome in told if outcome.status]
    if arguments.json:
        print(
            json.dumps(
                {"ok": not failed, "cameras": {o.camera.id: _json(o) for o in told}}, indent=1
            )
        )
    else:
        print(*_conclusion(told), sep="\n")
    statuses = {outcome.status for outcome in failed}
    return statuses.pop() if len(statuses) == 1 else int(bool(failed))


def _line(outcome: Outcome) -> str:
    report = outcome.report
    if report is None:
        return outcome.error
    failure = report.failure
    if not report.ok:
        return "no picture" if failure is None else f"{failure.step}: {failure.text}"
    told = [report.picture]
    if report.keyframe_every_s is not None:
        told.append(f"a keyframe every {report.keyframe_every_s:.1f} s")
    if report.reader:
        told.append(f"by {report.reader}")
    return ", ".join(told) + (
        f" (but {failure.step}: {failure.text})" if failure is not None else ""
    )


def _conclusion(told: list[Outcome]) -> Iterable[str]:
    well = sum(not outcome.status for outcome in told)
    yield ""
    yield f"{well} of {len(told)} cameras give pictures"
    advised: dict[str, list[str]] = {}
    for outcome in told:
        report = outcome.report
        if report is None:
            continue
        if outcome.status and report.failure is not None and report.failure.advice:
            advised.setdefault(report.failure.advice, []).append(outcome.camera.id)
        elif report.ok and report.keys:
            yield f"{outcome.camera.id}: change {', '.join(report.lines())}"
    for text, cameras in advised.items():
        more = f" and {len(cameras) - NAMED} more" if len(cameras) > NAMED else ""
        yield f"{', '.join(cameras[:NAMED])}{more}: {text}"


def _json(outcome: Outcome) -> dict[str, object]:
    return (
        outcome.report.as_dict()
        if outcome.report is not None
        else {"ok": False, "error": outcome.error}
    )


# ---- the examination


async def _examined(
    arguments: argparse.Namespace,
    order: Order,
    camera: Camera,
    capture: Capture,
    say: Callable[[Finding], None],
) -> Outcome:
    """Examine one camera under its leases. A missing lease or daemon is an outcome, no error."""
    asked: SyncLeaseClient = client(arguments)
    redactor = Redactor((camera.password,) if camera.password else ())
    try:
        async with doctor_leases(
            asked, camera, order.inventory, every=arguments.sessions
        ) as permission:
            examined = Doctor(
                camera,
                capture,
                say,
                new=not order.known,
                other_sessions=permission.other_sessions,
                scrub=redactor.line,
            )
            try:
                report = await examined.examine(sessions=arguments.sessions)
            finally:
                permission.ended(examined.end)
    except (RtspBusy, LeaseLost) as error:
        return Outcome(camera, error=str(error), status=EX_TEMPFAIL)
    except DaemonUnavailableError as error:
        return Outcome(
            camera, error=str(error), status=EX_NOPERM if error.forbidden else EX_UNAVAILABLE
        )
    except ApiRefusal as error:
        return Outcome(camera, error=str(error), status=1)
    return Outcome(camera, report, status=0 if report.ok else 1)
