"""The inventory: refused whole with every fault at once, secrets resolved and never shown."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st
from inventories import faults, load

from camserver.config import load_inventory, schema
from camserver.config.units import parse_duration, parse_size
from camserver.config.urls import with_credentials
from camserver.errors import InventoryError
from camserver.host.redact import Redactor

REFERENCE = Path(__file__).parents[2] / "config" / "cameras.toml"


def test_the_reference_inventory_is_valid_and_fits_the_schema() -> None:
    """config/cameras.toml is what operators start from."""
    inventory = load_inventory(REFERENCE, {})
    assert inventory.cameras
    jsonschema.validate(tomli.loads(REFERENCE.read_text()), json.loads(json.dumps(schema())))


def test_every_fault_in_one_report(tmp_path: Path) -> None:
    """Nobody should have to run check ten times to find ten faults."""
    found = faults(
        tmp_path,
        """
        colour = 1
        [output]
        directroy = "x"
        quality = 101
        [[camera]]
        id = "Gate"
        url = "rtsp://10.0.0.1/x"
        intervall = 3
        [[camera]]
        id = "b"
        profile = "dahau"
        [[camera]]
        id = "b"
        url = "rtsp://u:a/b@10.0.0.1/x"
        timeout = "5x"
        password = "p"
        password_file = "q"
    """,
    )
    assert found == [
        "colour: unknown key",
        "[output]: quality: Input should be less than or equal to 100",
        "[output]: directroy: unknown key (did you mean 'directory'?)",
        (
            "camera 'Gate': id: must be lower-case letters, digits, - and _, 64 at most, beginning"
            " with a letter or digit"
        ),
        "camera 'Gate': intervall: unknown key (did you mean 'interval'?)",
        "camera 'b': profile: 'dahau' is not known (did you mean 'dahua'?)",
        "camera 'b': needs a url (or at least a snapshot_url)",
        f"camera 'b': id: used twice (first in {tmp_path}/cameras.toml)",
        (
            "camera 'b': url: not a URL (is there a / # ? or : in the password? Then give it as"
            ' password = "…")'
        ),
        (
            'camera \'b\': timeout: expected a duration such as "30s", "500ms", "7d" or a number of'
            " seconds"
        ),
        "camera 'b': password and password_file exclude each other",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[[camera]]\nid = ["a"]\nurl = "rtsp://x/"', "id: Input should be a valid string"),
        (
            '[[camera]]\nid = "a"\nurl = "rtsp://x/"\ninterval = inf',
            "interval: expected a duration",
        ),
        (
            '[[camera]]\nid = "a"\nurl = "rtsp://x/"\ninterval = nan',
            "interval: expected a duration",
        ),
        ('[[camera]]\nid = "a"\nurl = "rtsp://x/"\ninterval = "99999999999d"', "from 0 to"),
        ('[[camera]]\nid = "a"\nurl = "rtsp://x/"\npassword_file = "\\u0000"', "password_file"),
        ("[retention]\nmin_free = inf", "min_free: expected a size"),
        ('include = ["**x/*.toml"]', "no file name or glob"),
        ('[http]\nlisten = "0.0.0.0:3000"\npassword = ""', "[http]: the password is empty"),
        (
            '[go2rtc]\napi = "http://10.0.0.5:1984"\npage = "http://op:s3cret@10.0.0.5"',
            "not in a URL",
        ),
        ("a = " + "9" * 5000, "not valid TOML"),
        ("a = " + "[" * 5000, "not valid TOML"),
        *(
            (f'[[camera]]\nid = "a"\nurl = "rtsp://user:{secret}@1.2.3.4/x"', 'password = "…"')
            for secret in ("12#S3cret", "1/sS3cret", "1?sS3cret", "12#S3:cret", "x/y", "a:b#c")
        ),
    ],
)
def test_what_nobody_foresees_is_a_fault_too(tmp_path: Path, text: str, words: str) -> None:
    """No traceback, no half understood URL, and no part of a password in the report."""
    report = "\n".join(faults(tmp_path, text))
    assert words in report
    assert "cret" not in report


def test_syntax_unreadable_and_missing(tmp_path: Path) -> None:
    assert "not valid TOML" in faults(tmp_path, "a = [")[0]
    with pytest.raises(InventoryError, match="cannot be read: No such file"):
        load_inventory(tmp_path / "none.toml")


def test_strength_camera_profile_defaults(tmp_path: Path) -> None:
    """The camera's own word beats its profile's, the profile's beats [defaults]."""
    inventory = load(
        tmp_path,
        """
        [defaults]
        max_sessions = 7
        cooldown = "1s"
        interval = "1m"
        [profiles.tapo]
        timeout = "3s"
        [[camera]]
        id = "a"
        url = "rtsp://10.0.0.1/x"
        profile = "tapo"
        [[camera]]
        id = "b"
        url = "rtsp://10.0.0.2/x"
        profile = "tapo"
        max_sessions = 1
    """,
    )
    a, b = inventory.cameras  # type: ignore[attr-defined]
    assert (a.max_sessions, a.cooldown_s, a.interval_s, a.timeout_s) == (2, 0.0, 60.0, 3.0)
    assert b.max_sessions == 1
    assert a.device == "10.0.0.1:554"


def test_devices_must_agree(tmp_path: Path) -> None:
    with pytest.raises(
        InventoryError,
        match="camera 'b': max_sessions: 2 here, 1 in camera 'a', but both are sessions",
    ):
        load(
            tmp_path,
            """
            [[camera]]
            id = "a"
            url = "rtsp://10.0.0.1/1"
            [[camera]]
            id = "b"
            url = "rtsp://10.0.0.1/2"
            max_sessions = 2
        """,
        )


def test_include_and_credentials(tmp_path: Path) -> None:
    """Passwords come from the field, a file, a credential or the URL, with any characters."""
    inventory = load(
        tmp_path,
        """
        include = ["more-*.toml"]
        [defaults]
        username = "admin"
        [[camera]]
        id = "file"
        url = "rtsp://10.0.0.1/x"
        password_file = "pw"
        [[camera]]
        id = "credential"
        url = "rtsp://10.0.0.2/x"
        password_credential = "pw"
    """,
        pw="p@:/#%? ü\nrest",
        **{"more-1.toml": '[[camera]]\nid="url"\nurl="rtsp://admin:a%40b@10.0.0.3/x"\n'},
    )
    found = {c.id: c for c in inventory.cameras}  # type: ignore[attr-defined]
    assert found["file"].password == found["credential"].password == "p@:/#%? ü"
    assert (found["url"].password, found["url"].url) == ("a@b", "rtsp://10.0.0.3/x")
    assert "a@b" not in repr(inventory)


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("500ms", 0.5), ("7d", 604800), (2.5, 2.5), ("1.5 min", 90)]
)
def test_durations(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


def test_sizes() -> None:
    assert parse_size("20GB") == 20 * 10**9
    for wrong in ("-1s", "x", True, None, "5 parsec"):
        with pytest.raises(ValueError, match="expected a duration"):
            parse_duration(wrong)


@given(st.text(min_size=3, max_size=40))
def test_no_form_of_a_password_survives_redaction(password: str) -> None:
    """Plain, percent-encoded, in a URL: a password given in the inventory leaves no text."""
    scrub = Redactor([password]).scrub
    url = with_credentials("rtsp://10.9.8.7:554/stream", "admin", password)
    encoded = url.split("admin:", 1)[1].split("@")[0]
    assert (
        encoded not in scrub(f"could not open {url}")
        or encoded in "could not open rtsp://***10.9.8.7:554/stream"
    )
    assert scrub("x " + password + " y") == "x *** y" or password in "x *** y"


def test_health_is_of_all_cameras_and_of_each(tmp_path: Path) -> None:
    """A camera changes single keys of [health], or is not judged at all."""
    inventory = load(
        tmp_path,
        '[health]\nfrozen_after = "5m"\nblurred_below = 0.5\n'
        + "[profiles.hall]\nhealth = {black_below = 0.02}\n"
        + "".join(
            f'[[camera]]\nid = "{name}"\nurl = "rtsp://{name}/"\n{key}\n'
            for name, key in (
                ("plain", ""),
                ("on", "health = true"),
                ("off", "health = false"),
                ("own", 'health = {frozen_after = "1m"}'),
                ("dark", 'profile = "hall"'),
            )
        ),
    )
    limits = {camera.id: camera.health for camera in inventory.cameras}
    assert limits["plain"] == limits["on"] == inventory.health
    assert limits["off"] is None
    own, dark = limits["own"], limits["dark"]
    assert own is not None
    assert dark is not None
    assert (own.frozen_after, own.blurred_below) == (60, 0.5)
    assert (dark.black_below, dark.frozen_after) == (0.02, 300)


def test_limits_of_health_that_make_no_sense(tmp_path: Path) -> None:
    camera = '[[camera]]\nid = "a"\nurl = "rtsp://a/"\n'
    told = "\n".join(
        faults(
            tmp_path,
            '[health]\nfrozen_after = "0s"\nblack_below = 2\nblurry = 1\n'
            + camera
            + "health = {clock_tolerance = -1}\n",
        )
    )
    for key in ("frozen_after", "black_below", "blurry", "clock_tolerance"):
        assert key in told
    for key, told in (
        ("health = {black_below = nan}", "health.black_below: Input should be less than"),
        ("health = 1", "health: expected true, false or a table"),
        ('health = "no"', "health: expected true, false or a table"),
    ):
        assert faults(tmp_path, f"{camera}{key}\n")[0].startswith(f"camera 'a': {told}")
