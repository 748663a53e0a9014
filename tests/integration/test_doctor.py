"""`camserver doctor`: names each fault rightly, and ends with an entry that works."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from house import House, StartFleet
from support import camera

from camserver.config import load_inventory
from camserver.config.model import SOURCES
from camserver.doctor import snapshots
from camserver.doctor.comparison import Shot, StreamSeen, compare
from camserver.doctor.examination import Doctor
from camserver.doctor.report import Finding, Report
from camserver.host.redact import Redactor
from camserver.simulator.camera import Fault, SimulatedCamera


async def examine(
    house: House, *, sessions: bool = False, other_sessions: int = 0, **keys: object
) -> Report:
    found: list[Finding] = []
    target = camera(
        "cam", **({"url": house.fleet.url("cam"), "timeout_s": 2.0, "cooldown_s": 0.0} | keys)
    )
    doctor = Doctor(
        target,
        house.capture,
        found.append,
        other_sessions=other_sessions,
        scrub=Redactor([target.password] if target.password else ()).scrub,
    )
    report = await doctor.examine(sessions=sessions)
    assert found == report.findings
    await house.seen("cam")
    return report


@pytest.mark.parametrize(
    ("fault", "step", "words"),
    [
        ("refuse", "session", "connection refused"),
        ("deaf", "session", "no answer to DESCRIBE within 2.0 s"),
        ("stall:DESCRIBE", "session", "no answer to DESCRIBE within 2.0 s"),
        ("stall:SETUP", "session", "no answer to SETUP within 2.0 s"),
        ("stall:PLAY", "session", "no answer to PLAY within 2.0 s"),
        ("silent", "keyframe", "silent after PLAY"),
        ("no-keyframe", "keyframe", "pictures but no keyframe within 2.0 s"),
        ("cut", "keyframe", "the camera closed the connection before a whole keyframe came"),
        ("damage", "picture", "the keyframe"),
        ("loss:0.7", "keyframe", "every keyframe within 2.0 s was incomplete"),
        ("reorder:1", "keyframe", "every keyframe within 2.0 s was incomplete"),
        ("status:401", "session", "it asks for a login"),
        ("status:404", "session", "no such stream (404 to DESCRIBE)"),
        ("status:453:SETUP", "session", "its sessions are taken (453 to SETUP)"),
        ("status:503", "session", "busy: its sessions are taken (503 to DESCRIBE)"),
    ],
)
async def test_each_fault_by_its_name(fault: str, step: str, words: str, fleet: StartFleet) -> None:
    """The step, the words, and advice for each; the camera is left as it was found."""
    house = await fleet([SimulatedCamera("cam", "Gate", gop=3, fault=Fault.parse(fault))])
    report = await examine(house)
    failed = [f for f in report.findings if not f.ok]
    assert not report.ok
    assert (failed[0].step, words in failed[0].text) == (step, True), failed[0]
    assert failed[0].advice
    record = house.fleet.cameras["cam"].record
    assert record.sessions_max <= 1
    assert record.ends_unclean <= (fault in ("cut", "stall:SETUP"))


async def test_a_camera_that_reboots_is_found_when_it_is_back(fleet: StartFleet) -> None:
    """Gone it refuses, or nothing listens; back it is well."""
    house = await fleet([SimulatedCamera("cam", "Gate", gop=3)])
    rebooting = asyncio.create_task(house.fleet.reboot("cam", 0.5))
    await asyncio.sleep(0)
    failed = next(f for f in (await examine(house)).findings if not f.ok)
    assert "connection refused" in failed.text
    await rebooting
    assert (await examine(house)).ok


async def test_a_wrong_password_is_named_and_not_shown(fleet: StartFleet) -> None:
    house = await fleet([SimulatedCamera("cam", "Gate", username="viewer", password="right")])
    report = await examine(house, username="viewer", password="wr0ng")
    failed = next(f for f in report.findings if not f.ok)
    assert "wrong username or password" in failed.text
    assert "wr0ng" not in report.json() + report.toml()
    assert house.fleet.cameras["cam"].record.wrong_logins == 1, "cameras lock accounts"
    assert "[[camera]]" not in report.toml()
    house.may_refuse_logins.add("cam")


async def test_the_other_client_is_tried_where_ours_reads_nothing(fleet: StartFleet) -> None:
    """And the doctor says which of the two reads the camera.

    This one has neither clock nor markers.
    """
    house = await fleet([SimulatedCamera("cam", "Gate", gop=3, quirk="no-clock+no-markers")])
    report = await examine(house, timeout_s=8.0)
    assert any("libav reads this camera" in f.text for f in report.findings if f.step == "libav"), (
        report.findings
    )
    assert any("but no end of a picture" in f.text for f in report.findings if f.step == "keyframe")
    assert report.ok


@pytest.mark.parametrize(
    ("change", "step", "words"),
    [
        (
            {"fault": Fault.parse("status:501:OPTIONS")},
            "methods",
            "OPTIONS is not answered (refused (501 to OPTIONS))",
        ),
        (
            {"fault": Fault.parse("stall:OPTIONS")},
            "methods",
            "OPTIONS is not answered (within 2 s)",
        ),
        ({"quirk": "redirect"}, "redirect", "it sends us to rtsp://127.0.0.1"),
        ({"fault": Fault.parse("status:404@stream1")}, "session", "no such stream"),
    ],
)
async def test_what_polls_put_up_with_is_no_failure(
    change: dict[str, Any], step: str, words: str, fleet: StartFleet
) -> None:
    """A camera of which pictures come by any way is well; each way is looked at."""
    house = await fleet([SimulatedCamera("cam", "Gate", gop=3, **change)])
    report = await examine(house, sub_url=house.fleet.url("cam").replace("stream1", "stream2"))
    found = {f.step: f.text for f in report.findings}
    assert words in found[step]
    assert found["sub-stream"].startswith("320x180")
    assert report.ok, report.findings


async def test_a_rest_is_as_long_as_the_end_before_it_asks_for(fleet: StartFleet) -> None:
    """TEARDOWN is not answered.

    The device is owed the long cool-down between two sessions of ours.
    """

    class Watched(SimulatedCamera):
        """One whose methods can be replaced."""

    house = await fleet([Watched("cam", "Gate", gop=2, fault=Fault.parse("stall:TEARDOWN"))])
    simulated = house.fleet.cameras["cam"]
    moments: list[float] = []
    opened = simulated.opened

    def noted(now: float) -> None:
        moments.append(now)
        opened(now)

    simulated.opened = noted  # type: ignore[method-assign]
    await examine(house, unclean_cooldown_s=3.0)
    assert moments[1] - moments[0] > 3.0


async def test_full_in_the_voice_of_a_wrong_password_is_full(fleet: StartFleet) -> None:
    house = await fleet([SimulatedCamera("cam", "Gate", full_voice="401")])
    reader, writer = await asyncio.open_connection("127.0.0.1", house.fleet.cameras["cam"].port)
    writer.write(
        b"SETUP rtsp://x/stream1/trackID=0 RTSP/1.0\r\nCSeq: 1\r\n"
        b"Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n\r\n"
    )
    await reader.readuntil(b"\r\n\r\n")
    target = camera("cam", url=house.fleet.url("cam"), timeout_s=2.0, username="a", password="b")
    report = await Doctor(
        target,
        house.capture,
        lambda _: None,
        other_sessions=1,
    ).examine(sessions=False)
    writer.close()
    await writer.wait_closed()
    failed = next(f for f in report.findings if not f.ok)
    assert "taken as full" in failed.text
    assert "max_sessions" in failed.advice


async def test_a_common_password_spoils_no_entry(fleet: StartFleet) -> None:
    """admin/admin: the user's name is not the password."""
    house = await fleet([SimulatedCamera("cam", "Gate", gop=3, username="admin", password="admin")])
    report = await examine(house, username="admin", password="admin")
    assert 'username = "admin"' in report.toml()
    assert json.loads(report.json())["camera"]["username"] == "admin"


@pytest.mark.parametrize(("sessions", "cooldown_s", "said"), [(1, 0.0, "0 s"), (2, 0.8, "1 s")])
async def test_it_counts_sessions_and_the_pause_between_two(
    sessions: int, cooldown_s: float, said: str, fleet: StartFleet
) -> None:
    """As many as it gives, one more is tried; then how soon after a TEARDOWN the next is taken."""
    house = await fleet(
        [SimulatedCamera("cam", "Gate", gop=2, max_sessions=sessions, cooldown_s=cooldown_s)]
    )
    report = await examine(house, sessions=True, cooldown_s=2 * cooldown_s)
    assert report.ok, report.findings
    found = {f.step: f.text for f in report.findings}
    assert found["sessions"].startswith(f"{sessions} at once; the next one:")
    assert found["gap"] == f"a new session {said} after a TEARDOWN works"
    assert (report.keys.get("max_sessions", 1), report.keys.get("cooldown", "0s")) == (
        sessions,
        said.replace(" ", ""),
    )
    record = await house.seen("cam")
    assert record.sessions_max == sessions + 1
    assert record.ends_unclean == 0


async def test_what_it_finds_of_a_healthy_camera(fleet: StartFleet) -> None:
    house = await fleet(
        [
            SimulatedCamera(
                "cam", "Gate", gop=3, username="viewer", password="p: @", clock_offset_s=3600.0
            )
        ]
    )
    report = await examine(house, username="viewer", password="p: @")
    found = {f.step: f.text for f in report.findings}
    assert found["login"] == "digest MD5"
    assert found["tracks"] == "video H264"
    assert found["methods"].startswith("OPTIONS, DESCRIBE")
    assert found["picture"].startswith("640x360 h264 Baseline")
    assert re.fullmatch(r"a keyframe every 0\.[1-9] s, 3 pictures", found["distance"])
    assert found["fast open"].startswith("works")
    assert re.fullmatch(r"the camera's clock is \+(3599|3600)\.\d s from ours", found["clock"])


def test_a_long_pause_gives_an_entry_that_is_accepted_too(tmp_path: Path) -> None:
    """The cool-down it found is longer than the usual one after an unclean end.

    Both are written.
    """
    report = Report(
        keys={
            "id": "cam",
            "url": "rtsp://127.0.0.1/x",
            "cooldown": "5s",
            "unclean_cooldown": "10s",
        },
        pictures=1,
    )
    (tmp_path / "c.toml").write_text(report.toml())
    assert load_inventory(tmp_path / "c.toml").cameras[0].cooldown_s == 5.0


async def test_what_cannot_be_reached_is_not_well(fleet: StartFleet) -> None:
    house = await fleet([SimulatedCamera("cam", "Gate")])
    report = await examine(house, url=None, snapshot_url="http://127.0.0.1:9/x.jpg")
    assert not report.ok
    assert not Report().ok


@pytest.mark.parametrize(
    ("habit", "sources", "words", "proposed"),
    [
        ("", SOURCES, "as large as the stream and as fresh", ["http", "rtsp"]),
        ("", ("http", "rtsp"), "as large as the stream and as fresh", None),
        ("frozen", SOURCES, "it gave the same picture 3 times while the stream changed", None),
        ("frozen", ("http", "rtsp"), "the stream is the better source", ["rtsp", "http"]),
        ("small", SOURCES, "it is smaller: 160x90, and the stream is 640x360", None),
    ],
)
async def test_a_snapshot_url_is_compared_with_the_stream(
    habit: str,
    sources: tuple[str, ...],
    words: str,
    proposed: list[str] | None,
    fleet: StartFleet,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(snapshots, "APART_S", 1.1)  # its clock shows seconds
    house = await fleet([SimulatedCamera("cam", "Gate", gop=12, http_port=0, http_quirk=habit)])
    url = house.fleet.snapshot_url("cam")
    report = await examine(house, snapshot_url=url, sources=sources, timeout_s=30.0)
    found = {finding.step: finding for finding in report.findings}
    assert found["snapshot URL"].ok
    assert words in found["sources"].text
    assert report.keys.get("sources") == proposed


def test_what_is_not_known_is_not_recommended() -> None:
    """The stream gave one keyframe only, and the snapshot URL the same picture twice."""
    shots = [Shot(640, 360, 1000, 0.1, b"same")] * 2
    found = compare(shots, StreamSeen(640, 360, 1.0, None), SOURCES, has_sub=True)
    assert found.sources is None
    assert "whether it is fresh is not known" in found.text
    other = [*shots, Shot(640, 360, 1000, 0.1, b"other")]
    found = compare(other, StreamSeen(640, 360, 1.0, None), SOURCES, has_sub=True)
    assert found.sources == ("http", "rtsp", "rtsp-sub")
