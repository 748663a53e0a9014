"""Metrics, alert rules and the dashboard, judged by Prometheus' own tools."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import subprocess
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from desk import StartDaemon
from support import free_port
from web import ask, fleet


async def test_prometheus_takes_our_metrics(tmp_path: Path, daemon: StartDaemon) -> None:
    """Promtool finds nothing to complain of.

    A real Prometheus scrapes them and knows how fresh the camera is.
    """
    address, prometheus = f"127.0.0.1:{free_port()}", free_port()
    desk = await daemon(fleet(), http=address, interval="300ms")
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
        b'camserver_poll_lateness_seconds_sum{state="healthy"}',
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
            query = f"http://127.0.0.1:{prometheus}/api/v1/query?query=camserver_freshness_seconds"
            return json.loads(urlopen(query).read())["data"]["result"]
        return None

    try:
        found = await desk.until(scraped)
        assert found[0]["metric"]["camera"] == "cam"
    finally:
        scraper.terminate()
        await scraper.wait()


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
    check_rules(tmp_path / "t.yml")


def check_rules(path: Path) -> None:
    """Let promtool run its tests of our rules."""
    tested = subprocess.run(
        ["promtool", "test", "rules", path],
        check=False,
        capture_output=True,
        text=True,
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_a_suspect_camera_fires_one_rule_for_each_reason(tmp_path: Path) -> None:
    rules = Path(__file__).parents[2] / "config" / "alerts.yml"
    summary = "gate: its pictures come, but may not be true: frozen"
    (tmp_path / "t.yml").write_text(
        f"""rule_files: [{rules}]
tests:
  - interval: 1m
    input_series:
      - {{series: 'camserver_picture_suspect{{camera="gate",reason="frozen"}}', values: "1x5"}}
    alert_rule_test:
      - eval_time: 3m
        alertname: PictureSuspect
        exp_alerts: [{{exp_labels: {{camera: gate, reason: frozen, severity: warning}},
                       exp_annotations: {{summary: "{summary}"}}}}]
      - {{eval_time: 15m, alertname: PictureSuspect, exp_alerts: []}}
"""
    )
    check_rules(tmp_path / "t.yml")


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


def alert_series() -> str:
    """An hour-old picture of an hourly camera, and a camera of the same id on another host."""
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
    return series


def alert(name: str, labels: str, summary: str) -> str:
    expected = (
        f'{{exp_labels: {{{labels}}}, exp_annotations: {{summary: "{summary}"}}}}' if labels else ""
    )
    return f"      - eval_time: 30m\n        alertname: {name}\n        exp_alerts: [{expected}]\n"


def test_alerts_judge_each_camera_by_its_own_interval_on_its_own_instance(tmp_path: Path) -> None:
    """An hour-old picture of an hourly camera is well.

    A camera of the same id on another host is another camera.
    """
    rules = Path(__file__).parents[2] / "config/alerts.yml"
    (tmp_path / "t.yml").write_text(
        f"rule_files: [{rules}]\ntests:\n  - interval: 1m\n    input_series:\n{alert_series()}   "
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
    check_rules(tmp_path / "t.yml")
