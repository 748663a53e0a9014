"""The wall's server: read-only, safe to show, right about caches; metrics that Prometheus takes."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
import socket
import subprocess
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import simplejpeg
from desk import Desk, at_the_desk
from support import free_port

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


def test_pictures_are_cached_rightly_and_made_smaller_once(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"

    async def work(desk: Desk) -> None:
        await desk.until((desk.output / "cam/latest.jpg").exists)
        for query, width in (("", 640), ("?width=300", 320)):
            path = f"/v1/cameras/cam/latest.jpg{query}"
            status, headers, body = await asyncio.to_thread(ask, address, path)
            assert (status, headers["Content-Type"], headers["Cache-Control"]) == (
                200,
                "image/jpeg",
                "no-cache",
            )
            assert simplejpeg.decode_jpeg_header(body)[1] == width
            assert (
                await asyncio.to_thread(ask, address, path, **{"If-None-Match": headers["Etag"]})
            )[0] == 304
            assert (await asyncio.to_thread(ask, address, path, **{"If-None-Match": '"other"'}))[
                0
            ] == 200
            since = {"If-Modified-Since": headers["Last-Modified"]}
            assert (await asyncio.to_thread(ask, address, path, **since))[0] == 304
        for width in ("0", "-1", "9999999999999999999999", "x", "%00"):
            assert (
                await asyncio.to_thread(ask, address, f"/v1/cameras/cam/latest.jpg?width={width}")
            )[0] == 400
        assert (await asyncio.to_thread(ask, address, "/v1/cameras/bad/latest.jpg?width=160"))[
            0
        ] == 404

    at_the_desk(tmp_path, work, fleet(), http=address, interval="100s")


def test_it_is_read_only_and_shows_nothing_else(tmp_path: Path) -> None:
    """No verbs that act, no way out of the folders, no page for others, no crash by nonsense."""
    address = f"127.0.0.1:{free_port()}"

    async def work(desk: Desk) -> None:
        await desk.until((desk.output / "cam/latest.jpg").exists)
        (desk.output / "secret.jpg").write_bytes(b"\xff\xd8")
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            for path in (
                "/v1/cameras/cam/snapshot",
                "/v1/cameras/cam/lease",
                "/v1/reload",
                "/v1/cameras",
                "/",
            ):
                assert (await asyncio.to_thread(ask, address, path, method))[0] in (404, 405)
        assert (await asyncio.to_thread(ask, address, "/", "HEAD"))[0] == 200
        for path in (
            "/v1/cameras/../secret.jpg",
            "/v1/cameras/cam/archive/../../secret.jpg",
            "/wall/../server.py",
            "/wall/%2e%2e/web.py",
            "/v1/cameras/cam/archive/%2e%2e/%2e%2e/secret.jpg",
            "/v1/cameras/cam/archive//etc/passwd",
            "/v1/cameras/cam%00/latest.jpg",
            "/v1/cameras/cam/archive/latest.json",
            "//etc/passwd",
        ):
            assert (await asyncio.to_thread(ask, address, path))[0] in (400, 404), path
        # A name that points here
        assert (await asyncio.to_thread(ask, address, "/", Host="evil.example"))[0] == 403
        assert (await asyncio.to_thread(ask, address, "/", Host="localhost:3000"))[0] == 200
        assert (await asyncio.to_thread(ask, address, "/", Host="[::1"))[0] == 400
        site = json.loads((await asyncio.to_thread(ask, address, "/wall/site.json"))[2])
        assert site == {"actions": False, "go2rtc": None, "timezone": "UTC"}
        desk.http, desk.more = (
            f'{address}"\nhosts = ["wall.example"] #',
            '[go2rtc]\napi = "http://127.0.0.1:1984"',
        )
        desk.write(interval="100s")
        await asyncio.to_thread(desk.client.post, "/v1/reload")
        assert (await asyncio.to_thread(ask, address, "/", Host="wall.example"))[0] == 200
        _, headers, body = await asyncio.to_thread(ask, address, "/wall/site.json")
        assert json.loads(body)["go2rtc"] == "http://127.0.0.1:1984"
        assert "frame-src http://127.0.0.1:1984" in headers["Content-Security-Policy"]
        for day in ("9999-12-31", "0000-01-01", "yesterday", ""):
            assert (await asyncio.to_thread(ask, address, f"/v1/cameras/cam/archive?day={day}"))[
                0
            ] == 400
        status, headers, _ = await asyncio.to_thread(ask, address, "/")
        assert status == 200
        assert "script-src 'self'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert (await asyncio.to_thread(ask, address, "/", **{"X-Big": "y" * 100_000}))[0] == 400
        with socket.create_connection(address.split(":")) as raw:  # type: ignore[arg-type]
            raw.sendall(b"\x16\x03\x01\0\xff\r\n\r\n")
            assert b"400" in raw.recv(1000)
        assert (await asyncio.to_thread(ask, address, "/healthz"))[0] == 200

    at_the_desk(tmp_path, work, fleet(), http=address, interval="100s")


def test_a_password_is_asked_for_and_actions_only_of_our_own_page(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"

    async def work(desk: Desk) -> None:
        def login(password: str) -> str:
            return "Basic " + base64.b64encode(f"camserver:{password}".encode()).decode()

        for headers in (
            {},
            {"Authorization": login("wrong")},
            {"Authorization": "Basic %%%"},
            {"Authorization": "Bearer x"},
        ):
            status, said, body = await asyncio.to_thread(ask, address, "/v1/cameras", **headers)
            assert (status, "Basic" in said["WWW-Authenticate"], b"Gate" in body) == (
                401,
                True,
                False,
            )
        assert (await asyncio.to_thread(ask, address, "/healthz"))[0] == 200
        right = {"Authorization": login("pass wörd")}
        assert (await asyncio.to_thread(ask, address, "/v1/cameras", **right))[0] == 200
        snapshot = "/v1/cameras/cam/snapshot"
        assert (await asyncio.to_thread(ask, address, snapshot, "POST", **right))[0] == 403
        action = right | {"X-Camserver-Action": "snapshot"}
        assert (
            await asyncio.to_thread(
                ask, address, snapshot, "POST", **action, Origin="http://evil.example"
            )
        )[0] == 403
        status, _, body = await asyncio.to_thread(
            ask, address, snapshot, "POST", **action, Origin=f"http://{address}"
        )
        assert (status, json.loads(body)["result"]) == (200, "ok")
        assert "pass w" not in desk.log.read_text()

    secret = tmp_path / "secret"
    secret.write_text("pass wörd\nrest\n")
    at_the_desk(
        tmp_path,
        work,
        fleet()[:1],
        http=f'{address}"\npassword_file = "{secret}"\nactions = true #',
        interval="100s",
    )


def test_a_thousand_listeners_and_slow_ones_do_no_harm(tmp_path: Path) -> None:
    """They all hear of the next picture; polling goes on; who reads nothing costs nothing."""
    address = f"127.0.0.1:{free_port()}"

    async def work(desk: Desk) -> None:
        host, port = address.split(":")
        connections = []
        for _ in range(1000):
            reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 20)
            writer.write(b"GET /v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            connections.append((reader, writer))
        heard = connections[:900]  # a hundred never read
        await asyncio.gather(
            *(reader.readuntil(b"event: snapshot.published") for reader, _ in heard)
        )
        before = len(list(desk.output.rglob("*Z.jpg")))
        await desk.until(lambda: len(list(desk.output.rglob("*Z.jpg"))) > before + 5)
        for _, writer in connections:
            writer.close()
        with contextlib.suppress(ConnectionError):
            await connections[-1][1].wait_closed()
        assert (await asyncio.to_thread(ask, address, "/healthz"))[0] == 200

    at_the_desk(tmp_path, work, fleet()[:1], http=address, interval="200ms")


def test_prometheus_takes_our_metrics(tmp_path: Path) -> None:
    """Promtool finds nothing to complain of.

    A real Prometheus scrapes them and knows how fresh the camera is.
    """
    address, prometheus = f"127.0.0.1:{free_port()}", free_port()

    async def work(desk: Desk) -> None:
        await desk.until(lambda: desk.client.get("/v1/cameras/cam")["polling"]["results"].get("ok"))
        _, _, text = await asyncio.to_thread(ask, address, "/metrics")
        check = await asyncio.to_thread(
            subprocess.run,
            ["promtool", "check", "metrics"],
            input=text,
            capture_output=True,
            check=False,
        )
        assert (check.returncode, check.stderr) == (0, b""), check.stderr.decode()
        for name in (
            b'camserver_polls_total{camera="cam",result="ok"}',
            b"camserver_sessions_held",
            b"camserver_build_info",
            b'camserver_capture_phase_seconds_bucket{le="0.1",phase="decode"}',
            b"camserver_disk_free_bytes",
            b"camserver_decoder_cpu_seconds_total",
            b"camserver_poll_lateness_seconds_sum",
        ):
            assert name in text, name
        config = tmp_path / "prometheus.yml"
        config.write_text(
            "scrape_configs: [{job_name: camserver, scrape_interval: 1s, static_configs: "
            f"[{{targets: ['{address}']}}]}}]\n"
        )
        scraper = await asyncio.create_subprocess_exec(
            "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={tmp_path}/tsdb",
            f"--web.listen-address=127.0.0.1:{prometheus}",
            stderr=asyncio.subprocess.DEVNULL,
        )

        def scraped() -> Any:
            with contextlib.suppress(OSError):
                query = (
                    f"http://127.0.0.1:{prometheus}/api/v1/query?query=camserver_freshness_seconds"
                )
                return json.loads(urlopen(query).read())["data"]["result"]
            return None

        try:
            found = await desk.until(scraped)
            assert found[0]["metric"]["camera"] == "cam"
        finally:
            scraper.terminate()
            await scraper.wait()

    at_the_desk(tmp_path, work, fleet(), http=address, interval="300ms")


@pytest.mark.parametrize("name", ["alerts.yml"])
def test_alert_rules_are_rules(name: str) -> None:
    rules = Path(__file__).parents[2] / "config" / name
    subprocess.run(["promtool", "check", "rules", rules], check=True, capture_output=True)


def test_a_camera_that_is_always_full_is_told_of(tmp_path: Path) -> None:
    """It backs off to one try in a minute; each counts as granted and as busy.

    One that is busy now and then is well.
    """
    rules = Path(__file__).parents[2] / "config/alerts.yml"
    series = "".join(
        f"""      - series: 'camserver_{name}_total{{device="{device}"}}'
        values: '{values}'
"""
        for device, name, values in (
            ("full", "lease_busy", "0+1x30"),
            ("full", "leases_granted", "0+1x30"),
            ("well", "lease_busy", "0+1x30"),
            ("well", "leases_granted", "0+6x30"),
            ("held", "lease_busy", "0+1x30"),
            ("held", "leases_granted", "3x30"),
        )
    )
    (tmp_path / "t.yml").write_text(
        f"""rule_files: [{rules}]
tests:
  - interval: 1m
    input_series:
{series}    alert_rule_test:
      - eval_time: 20m
        alertname: CameraBusyStorm
        exp_alerts: [{{exp_labels: {{device: full, severity: warning}},
                       exp_annotations: {{summary: "{{full}}"}}}},
                     {{exp_labels: {{device: held, severity: warning}},
                       exp_annotations: {{summary: "{{held}}"}}}}]
""".replace("{full}", "full: sessions are full; who holds them is in `camserver leases`").replace(
            "{held}", "held: sessions are full; who holds them is in `camserver leases`"
        )
    )
    tested = subprocess.run(
        ["promtool", "test", "rules", tmp_path / "t.yml"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_the_dashboard_asks_for_metrics_that_exist() -> None:
    """Every metric that the dashboard or a rule names stands in docs/metrics.md."""
    root = Path(__file__).parents[2]
    known = set(re.findall(r"`(camserver_[a-z0-9_]+)`", (root / "docs/metrics.md").read_text()))
    for name in ("alerts.yml", "grafana.json"):
        text = (root / "config" / name).read_text()
        used = {
            re.sub(r"_(bucket|sum|count)$", "", metric)
            for metric in re.findall(r"camserver_[a-z0-9_]+", text)
        }
        assert used <= known, (name, used - known)
    assert json.loads((root / "config/grafana.json").read_text())["panels"]


def test_alerts_judge_each_camera_by_its_own_interval_on_its_own_instance(tmp_path: Path) -> None:
    """An hour-old picture of an hourly camera is well.

    A camera of the same id on another host is another camera.
    """
    rules = Path(__file__).parents[2] / "config/alerts.yml"
    cameras = [
        ("a", "gate", "10", "0"),
        ("b", "gate", "10", "0+60x30"),
        ("a", "hourly", "3600", "0"),
        ("b", "new", "10", ""),
    ]
    series = ""
    for instance, name, interval, captured in cameras:
        labels = f'{{job="camserver",instance="{instance}",camera="{name}"}}'
        for metric, values in (
            ("stale_after_seconds", f"{4 * int(interval) + 15}+0x30"),
            ("polls_total", "0+6x30"),
            ("latest_timestamp_seconds", "0+0x30" if captured == "0" else captured),
        ):
            series += (
                f"      - series: 'camserver_{metric}{labels}'\n        values: '{values}'\n"
                * bool(values)
            )
    for instance in ("a", "b"):
        labels = f'{{job="camserver",instance="{instance}"}}'
        series += (
            f"      - series: 'camserver_cameras{labels}'\n        values:"
            f" '{3 if instance == 'a' else 2}+0x30'\n"
        )

    def alert(name: str, labels: str, summary: str) -> str:
        expected = (
            f'{{exp_labels: {{{labels}}}, exp_annotations: {{summary: "{summary}"}}}}'
            if labels
            else ""
        )
        return (
            f"      - eval_time: 30m\n        alertname: {name}\n        exp_alerts: [{expected}]\n"
        )

    (tmp_path / "t.yml").write_text(
        f"rule_files: [{rules}]\ntests:\n  - interval: 1m\n    input_series:\n{series}   "
        " alert_rule_test:\n"
        + alert(
            "CameraStale",
            "job: camserver, instance: a, camera: gate, severity: warning",
            "gate: no new picture for 30m 0s",
        )
        + alert(
            "CameraNeverSeen",
            "job: camserver, instance: b, camera: new, severity: warning",
            "new: polled, but there has never been a picture",
        )
        + alert("CamerasMostlyStale", "", "")
    )
    tested = subprocess.run(
        ["promtool", "test", "rules", tmp_path / "t.yml"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr
