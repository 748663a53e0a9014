"""Which events become lines of the log, and what no line contains."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from camserver.config import load_inventory
from camserver.errors import InventoryError
from camserver.event_log import CALM_WINDOWS, WINDOW_S, Counts, EventLog
from camserver.events import (
    CameraFresh,
    CameraRecovered,
    Event,
    LeaseReleased,
    LeaseWithdrawn,
    PollFailed,
    SnapshotPublished,
)
from camserver.host.redact import Redactor


def published(camera: str) -> Event:
    return SnapshotPublished(
        camera=camera,
        source="rtsp",
        engine="native",
        width=1,
        height=1,
        bytes=1,
        codec="h264",
        captured_at="",
        capture_ms=1.0,
        lease_wait_ms=1.0,
    )


def failed(camera: str, result: str, failures: int) -> Event:
    return PollFailed(
        camera=camera, result=result, error="x", consecutive_failures=failures, retry_in_s=1.0
    )


def released(camera: str) -> Event:
    return LeaseReleased(
        camera=camera, device="d", holder="poller", generation=1, held_ms=1.0, end="clean"
    )


class Log:
    """An EventLog whose clock the test moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.lines: list[str] = []
        self.log = EventLog(lambda event: self.lines.append(event.EVENT), clock=lambda: self.now)

    def minute(self, a_second: int, camera: str = "cam") -> list[str]:
        """The lines of a minute with so many routine events."""
        self.lines.clear()
        for _ in range(60):
            self.now += 1.0
            for _ in range(a_second):
                self.log(released(camera))
        return list(self.lines)


def test_a_few_lines_are_written_and_many_are_summarised() -> None:
    """Said once; over a minute of calm, they are written again."""
    log = Log()
    assert len(log.minute(9)) == 9 * 60
    many = log.minute(600)
    assert many.count("log.summarised") == 1
    assert 90 <= len(many) <= 102
    assert log.minute(600) == []
    assert log.minute(6) == []  # not few enough to change again
    calm = log.minute(2) + log.minute(2)
    assert calm.count("log.detailed") == 1
    assert calm[-1] == "lease.released"
    assert CALM_WINDOWS * WINDOW_S == 60


def test_a_change_of_state_is_always_a_line() -> None:
    """Fresh, failing, another failure, recovered, withdrawn; the same failure again is none."""
    log = Log()
    log.minute(600)
    log.lines.clear()
    for event in (
        CameraFresh(camera="gate"),
        published("gate"),
        failed("gate", "timeout", 1),
        failed("gate", "timeout", 2),
        failed("gate", "full", 3),
        failed("gate", "busy", 3),
        failed("gate", "full", 4),
        CameraRecovered(camera="gate", failures=3),
        published("gate"),
        published("gate"),
        LeaseWithdrawn(camera="gate", device="d", holder="poller", generation=1, why="w"),
    ):
        log.log(event)
    assert log.lines == [
        "camera.fresh",
        "poll.failed",
        "poll.failed",
        "camera.recovered",
        "lease.withdrawn",
    ]
    assert log.log.take_counts() == Counts(pictures=3, failures=5)
    assert log.log.take_counts() == Counts()


def test_the_level_is_of_the_inventory(tmp_path: Path) -> None:
    levels: list[str] = []
    path = tmp_path / "cameras.toml"
    path.write_text('[log]\nlevel = "warning"\n')
    EventLog(lambda _: None, levels.append).configure(load_inventory(path))
    assert levels == ["warning"]


class Counted(dict[str, Any]):
    """Counts the questions."""

    asked = 0

    def get(self, key: str, default: Any = None) -> Any:
        self.asked += 1
        return super().get(key, default)


@pytest.mark.parametrize("passwords", [10, 10_000])
def test_secrets_are_found_in_one_reading_however_many_there_are(passwords: int) -> None:
    redactor = Redactor(f"{n:05}-S3cret-äß {n}" for n in range(passwords))
    redactor._forms = counted = Counted(redactor._forms)
    line = "cam17: rtsp://10.0.0.17/stream1 does not answer DESCRIBE within 10 s"
    assert redactor.scrub(line) == line
    assert counted.asked == len(line) - 2
    alike = Redactor(f"cam-{n:05}-pw" for n in range(passwords))
    assert {len(lengths) for lengths, _ in alike._forms.values()} == {1}
    assert redactor.scrub("x 00009-S3cret-äß 9 y") == "x *** y"


@pytest.mark.parametrize(
    ("secrets", "text", "shown"),
    [
        (["abc", "abcdef"], "abcdefabc.", "******."),
        (["pa ss"], "pa%20ss pa+ss pa ss", "*** *** ***"),
        (["ab"], "ab is too short", "ab is too short"),
        ([], "rtsp://user:p@w@10.0.0.1/", "rtsp://***@10.0.0.1/"),
        (["sss"], "ssssss", "******"),
        ([], "\x1b[31mred\x07", "?[31mred?"),
    ],
)
def test_what_is_masked(secrets: list[str], text: str, shown: str) -> None:
    assert Redactor(secrets).scrub(text) == shown


@pytest.mark.parametrize(
    "form",
    [
        "Authorization: Basic {}",
        "{{'authorization': 'Basic {}'}}",
        "(b'Authorization', b'Basic {}')",
    ],
)
def test_a_login_of_a_request_is_masked(form: str) -> None:
    """Also in the traceback of a library, which shows the headers it could not read."""
    login = base64.b64encode(b"camserver:s3cret-page").decode()
    shown = Redactor(["s3cret-page"]).scrub("GET / " + form.format(login) + "\nHost: x")
    assert login not in shown
    assert "Host: x" in shown


def test_a_text_from_outside_is_one_line_of_limited_length() -> None:
    """A camera's words can't clear a terminal, forge a line, turn a text around, or fill a log."""
    redactor = Redactor(["s3cret"])
    shown = redactor.line(
        "a\r\n12:00 [info] forged\x1b[2J \u202egnp.exe\u202c \u200bs3cret" + "x" * 10**6
    )
    assert len(shown) == 1000
    assert shown.startswith("a? 12:00 [info] forged?[2J ?gnp.exe? ?***xxx")
    assert shown.isprintable()
    assert redactor.scrub("Tür ü 日本語\n\ttraceback") == "Tür ü 日本語\n\ttraceback"


@pytest.mark.parametrize("key", ["name", "device"])
@pytest.mark.parametrize("text", ["a\x1b[2J", "x\u202ey", "n" * 201, "two\nlines"])
def test_texts_of_the_inventory_can_be_shown(tmp_path: Path, key: str, text: str) -> None:
    path = tmp_path / "cameras.toml"
    path.write_text(f'[[camera]]\nid = "a"\nurl = "rtsp://x/"\n{key} = {json.dumps(text)}\n')
    with pytest.raises(InventoryError, match=key):
        load_inventory(path)


def test_a_username_that_cannot_be_sent_as_it_is_is_refused(tmp_path: Path) -> None:
    """The camera would count a wrong login at each poll."""
    path = tmp_path / "cameras.toml"
    path.write_text('[[camera]]\nid = "a"\nurl = "rtsp://admin%0A:p@x/"\n')
    with pytest.raises(InventoryError, match="username"):
        load_inventory(path)
