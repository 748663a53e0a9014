"""What a person types after `camserver doctor`, and what is advised after a failure."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camserver.cli.doctor import WrongUsage, split_login
from camserver.config import camera_from
from camserver.doctor.advice import advice
from camserver.doctor.report import Finding, Report
from camserver.errors import CameraError, InventoryError
from camserver.model import Result


@given(
    user=st.text(
        st.characters(blacklist_characters=":@/%#?", blacklist_categories=["Cs", "Cc"]), min_size=1
    ),
    password=st.text(st.characters(blacklist_characters="/%", blacklist_categories=["Cs"])),
    host=st.sampled_from(["192.0.2.1", "cam.example:554", "[2001:db8::1]:8554"]),
)
def test_a_login_is_found_whatever_the_password_holds(user: str, password: str, host: str) -> None:
    """@, #, ?, :, spaces and letters of any language, as people paste them."""
    assert split_login(f"rtsp://{user}:{password}@{host}/stream1") == (
        f"rtsp://{host}/stream1",
        user,
        password,
    )


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("rtsp://host/stream1", ("rtsp://host/stream1", "", None)),
        ("rtsp://host:554/a@b?c#d", ("rtsp://host:554/a@b?c#d", "", None)),
        ("rtsp://[::1]:554/a@b", ("rtsp://[::1]:554/a@b", "", None)),
        ("rtsp://viewer@host/stream1", ("rtsp://host/stream1", "viewer", None)),
        ("rtsp://viewer:@host/stream1", ("rtsp://host/stream1", "viewer", "")),
        ("rtsp://viewer:a%40b%23@host/s", ("rtsp://host/s", "viewer", "a@b#")),
        ("rtsp://viewer:100%@host/s", ("rtsp://host/s", "viewer", "100%")),
        ("rtsp://viewer:a/b@host/s", ("rtsp://host/s", "viewer", "a/b")),
        ("rtsp://viewer:a#b/c@host/s", ("rtsp://host/s", "viewer", "a#b/c")),
        # Then it is no URL, and that is said
        ("rtsp://viewer:secret/s", ("rtsp://viewer:secret/s", "", None)),
        ("rtsp://192.0.2.10:554?user=a@b", ("rtsp://192.0.2.10:554?user=a@b", "", None)),
        ("rtsp://host/s?user=a@b", ("rtsp://host/s?user=a@b", "", None)),
        ("rtsp://viewer:p?x@host/s", ("rtsp://host/s", "viewer", "p?x")),
        # It begins like a host and a port
        ("rtsp://viewer:1234#@host/s", ("rtsp://host/s", "viewer", "1234#")),
        ("rtsp://viewer:1234?a=b@host/s", ("rtsp://host/s", "viewer", "1234?a=b")),
    ],
)
def test_logins_as_people_write_them(url: str, expected: tuple[str, str, str | None]) -> None:
    assert split_login(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "rtsp://viewer:p@ss/word@192.0.2.1/s",
        "rtsp://viewer:pw@192.0.2.1/a@b",
        "rtsp://viewer:p@#/%?:x@192.0.2.1/s",
    ],
)
def test_no_part_of_a_password_is_taken_for_a_host(url: str) -> None:
    """With an @ before and after a / nobody knows where the password ends.

    Nothing is looked up, in an inventory neither.
    """
    with pytest.raises(WrongUsage, match=r"^there is a / in the password, or an @ in the path"):
        split_login(url)
    with pytest.raises(
        InventoryError, match=r"there is a / or \? in the password|the URL names no host"
    ):
        camera_from({"id": "camera", "url": url})


@given(st.text(st.characters(blacklist_categories=["Cs"]), min_size=1))
def test_a_camera_is_made_of_its_keys_with_any_password(password: str) -> None:
    """Control characters, quotes and letters beyond 16 bits.

    No text is written and parsed on the way.
    """
    keys = {"id": "camera", "url": "rtsp://192.0.2.1/s", "username": "viewer", "password": password}
    assert camera_from(keys).password == password


def test_a_camera_of_wrong_keys_is_refused_without_its_password() -> None:
    with pytest.raises(InventoryError, match="url: not a URL") as refused:
        camera_from(
            {
                "id": "camera",
                "url": "rtsp://viewer:s3cret/x",
                "sub_url": "http://x",
                "password": "s3cret",
            }
        )
    assert len(refused.value.faults) == 2
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    ("found_at", "result", "step", "right", "wrong"),
    [
        ("name", Result.UNREACHABLE, "", "DNS", "554"),
        ("session", Result.UNREACHABLE, "", "554", "DNS"),
        ("session", Result.TIMEOUT, "connecting", "firewall", "accepts the connection"),
        ("session", Result.TIMEOUT, "DESCRIBE", "accepts the connection", "firewall"),
        ("session", Result.TIMEOUT, "PLAY", "udp", "sends nothing"),
        ("keyframe", Result.TIMEOUT, "a keyframe", "plays, but sends nothing", "try transport"),
        ("session", Result.NOT_FOUND, "DESCRIBE", "/stream1", "snap"),
        ("snapshot URL", Result.NOT_FOUND, "", "/snap.jpg", "/stream1"),
        ("snapshot URL", Result.UNREACHABLE, "", "443", "554"),
        ("snapshot URL", Result.TIMEOUT, "connecting", "web server", "udp"),
        ("snapshot URL", Result.BAD_PICTURE, "", "browser", "transport"),
        ("keyframe", Result.UNREACHABLE, "", "It plays", "554"),
        ("session", Result.ERROR, "DESCRIBE", "libav", "Neither"),
        ("libav", Result.ERROR, "", "Neither", "engine ="),
        ("libav", Result.AUTH, "", "username and password", "engine ="),
        ("gap", Result.FULL, "", "cooldown", "NVR"),
    ],
)
def test_advice_fits_the_step(
    found_at: str, result: Result, step: str, right: str, wrong: str
) -> None:
    """What helps against a wrong path of a stream does not help against one of a picture."""
    text = advice(found_at, CameraError(result, "", step=step, login_refused=True))
    assert right in text
    assert wrong not in text


@pytest.mark.parametrize(
    "result", [r for r in Result if r not in (Result.OK, Result.BUSY, Result.STORAGE)]
)
def test_every_failure_of_a_camera_has_advice(result: Result) -> None:
    assert advice("session", CameraError(result, ""))


NOT_OF_HTTP = (Result.OK, Result.BUSY, Result.STORAGE, Result.NO_KEYFRAME)


@pytest.mark.parametrize("result", [r for r in Result if r not in NOT_OF_HTTP])
def test_a_snapshot_url_gets_no_advice_of_rtsp(result: Result) -> None:
    text = advice("snapshot URL", CameraError(result, "", login_refused=True))
    assert text
    for word in ("RTSP", "554", "I-frame", "transport", "sub-stream", "engine", "max_sessions"):
        assert word not in text


def test_who_sent_no_login_is_not_told_that_it_was_wrong() -> None:
    assert "none was sent" in advice("session", CameraError(Result.AUTH, ""))
    assert "none was sent" in advice("snapshot URL", CameraError(Result.AUTH, ""))


def test_after_a_failure_nothing_is_called_well() -> None:
    """A known camera with a failing step is not told that nothing has to change."""
    failed = Finding("sub-stream", ok=False, text="no such stream")
    report = Report(known="gate", pictures=1, findings=[failed])
    assert report.toml() == "# look at what failed above first\n"
    report.keys["timeout"] = "20s"
    assert (
        report.toml()
        == '# look at what failed above first\n# for camera gate: change\ntimeout = "20s"\n'
    )
    assert Report(known="gate", pictures=1).toml() == "# for camera gate: nothing to change\n"
    assert "[[camera]]" not in Report(findings=[failed], keys={"id": "x"}).toml()
