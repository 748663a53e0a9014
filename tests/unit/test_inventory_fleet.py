"""The [fleet] table, and what cameras say of the hosts that reach them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import tomli
from inventories import faults, load

from camserver.config import Inventory, schema
from camserver.fleet.authority import issue, make_authority

CAMERA = '[[camera]]\nid = "cam"\nurl = "rtsp://10.0.0.1/x"\n'
FLEET = '[fleet]\nname = "home"\netcd = ["https://10.0.0.2:2379"]\n'


def inventory_of(folder: Path, text: str, **files: str) -> Inventory:
    inventory = load(folder, text, **files)
    assert isinstance(inventory, Inventory)
    return inventory


def test_without_the_table_a_host_is_on_its_own(tmp_path: Path) -> None:
    inventory = inventory_of(tmp_path, CAMERA)
    assert inventory.fleet is None
    assert inventory.cameras[0].hosts == ("*",)


def test_a_whole_table(tmp_path: Path) -> None:
    text = (
        FLEET
        + 'host = "site-a-1"\nusername = "cams"\npassword_file = "secret"\nlabels = ["site-a"]\n'
        + "weight = 2.0\n"
        + CAMERA
        + 'hosts = ["site-a"]\nlost_cooldown = "60s"\n'
    )
    inventory = inventory_of(tmp_path, text, secret="s3cret\n")
    fleet = inventory.fleet
    assert fleet is not None
    assert (fleet.host_name, fleet.password, fleet.labels) == ("site-a-1", "s3cret", ["site-a"])
    assert "s3cret" in inventory.secrets
    assert "s3cret" not in repr(inventory)
    camera = inventory.cameras[0]
    assert (camera.hosts, camera.lost_cooldown_s) == (("site-a",), 60.0)
    jsonschema.validate(tomli.loads(text), json.loads(json.dumps(schema())))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('[fleet]\nname = "home"\n', "etcd"),
        ('[fleet]\nname = "home"\netcd = []\n', "etcd"),
        (FLEET.replace("home", "a/b"), "name"),
        (FLEET.replace("10.0.0.2", "user:pw@10.0.0.2"), "as username and password"),
        (FLEET + 'username = "cams"\n', "belong together"),
        (FLEET + 'username = "c"\npassword = "p"\npassword_file = "f"\n', "exclude each other"),
        (FLEET + 'etcd_ca_file = "none.pem"\n', "none.pem cannot be used"),
        (FLEET.replace("https", "http") + 'etcd_ca_file = "none.pem"\n', "https"),
        (FLEET + 'listen = "3443"\n', "host:port"),
        (FLEET + 'listen = "0.0.0.0:3443"\n', "belong together"),
        (FLEET + 'cert_file = "cert.pem"\n', "belong together"),
        (FLEET + "vouch = true\n", "needs listen"),
        (FLEET + "weight = 0\n", "weight"),
        (FLEET + '[go2rtc]\napi = "http://127.0.0.1:1984"\n', "needs [fleet] listen"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, fault: str) -> None:
    found = faults(tmp_path, text + CAMERA)
    assert len(found) == 1
    assert fault in found[0]


def test_a_host_that_others_reach(tmp_path: Path) -> None:
    make_authority(tmp_path, "home")
    certificate, key = issue(tmp_path, "site-a-1")
    files = f'ca_file = "ca.pem"\ncert_file = "{certificate.name}"\nkey_file = "{key.name}"\n'
    listen = 'host = "site-a-1"\nlisten = "[::]:3443"\nvouch = true\n'
    fleet = inventory_of(tmp_path, FLEET + listen + files + CAMERA).fleet
    assert fleet is not None
    assert fleet.address == ("::", 3443)
    assert fleet.own_url == "https://site-a-1:3443"
    elsewhere = '[go2rtc]\napi = "http://10.0.0.9:1984"\n'
    (fault,) = faults(tmp_path, FLEET + listen + files + elsewhere + CAMERA)
    assert "must be on this machine" in fault
    key.write_text("no key")
    found = faults(tmp_path, FLEET + listen + files + CAMERA)
    assert len(found) == 1
    assert "cannot be used" in found[0]


def test_cameras_of_one_device_have_the_same_hosts(tmp_path: Path) -> None:
    other = CAMERA.replace('"cam"', '"two"') + 'hosts = ["site-b"]\nlost_cooldown = "1m"\n'
    found = faults(tmp_path, CAMERA + other)
    assert [fault.split(": ")[1] for fault in found] == ["lost_cooldown", "hosts"]


def test_a_host_on_its_own_imports_nothing_of_it() -> None:
    program = (
        "import sys, camserver.daemon, camserver.cli.main;"
        "print([name for name in sys.modules if name.startswith('camserver.fleet')])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert result.stdout.strip() == b"[]"
