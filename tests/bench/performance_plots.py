"""The plots of docs/performance.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from expected import SMALL_FLEET

mpl.use("svg")
from matplotlib import pyplot as plt

Json = dict[str, Any]
OURS, OTHER, LIMIT = "#0b7285", "#adb5bd", "#e8590c"
WITHOUT_DATE = {"Date": None, "Creator": None}
PEERS = ("ffmpeg", "ffmpeg, small probe", "gst-launch", "PyAV", "OpenCV", "asyncio + ffmpeg")

plt.rcParams |= {"svg.hashsalt": "camserver", "font.size": 9, "axes.spines.top": False}
plt.rcParams |= {"axes.spines.right": False, "figure.constrained_layout.use": True}


def draw_scenes(scenes: Json, folder: Path) -> None:
    """Draw the contenders of the first scene, and one of them beside another in each scene."""
    _one_picture(scenes["plain"], folder / "one-picture.svg")
    _scenes(scenes, folder / "scenes.svg")


def _one_picture(scene: Json, path: Path) -> None:
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True)
    for panel, key, name in zip(panels, ("wall_s", "cpu_s"), ("wall, ms", "CPU, ms"), strict=True):
        bars = {
            who: 1000 * result["medians"][key]
            for who, result in reversed(scene["contenders"].items())
            if result["medians"] is not None
        }
        drawn = panel.barh(list(bars), list(bars.values()), color=[_colour(who) for who in bars])
        panel.bar_label(drawn, [f"{ms:.0f}" if ms else "" for ms in bars.values()], padding=3)
        if key == "wall_s":
            panel.set_xscale("log")
        panel.set_xlabel(name)
    figure.suptitle(scene["title"])
    _save(figure, path)


def _colour(contender: str) -> str:
    if contender.startswith("camserver"):
        return OURS
    return LIMIT if contender.startswith("limit") else OTHER


def _scenes(scenes: Json, path: Path) -> None:
    figure, panel = plt.subplots(figsize=(9, 0.45 * len(scenes) + 1.5))
    titles = [scene["title"] for scene in scenes.values()]
    for peer in PEERS:
        found = (scene["contenders"][peer] for scene in scenes.values())
        ratios = [one.get("cpu_ratio", float("nan")) for one in found]
        panel.plot(ratios, range(len(titles)), "o", label=peer)
    panel.axvline(1, color=OURS, label="camserver")
    panel.set_xscale("log")
    panel.set_xticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
    panel.set_yticks(range(len(titles)), titles)
    panel.invert_yaxis()
    panel.set_xlabel("CPU of a picture, as a multiple of camserver's")
    panel.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    _save(figure, path)


def draw_growth(points: list[Json], folder: Path) -> None:
    """Draw the CPU of a picture by the number of cameras."""
    figure, panel = plt.subplots(figsize=(6, 3))
    cameras = [point["cameras"] for point in points]
    panel.plot(cameras, [p["own_cpu_ms"] for p in points], "o-", color=OURS, label="the daemon")
    small = [p["small_cpu_ms"] for p in points]
    panel.plot(cameras, small, "o--", color=OURS, label=f"one of {SMALL_FLEET} at the same time")
    panel.plot(cameras, [p["workers_cpu_ms"] for p in points], "o-", color=OTHER, label="decoders")
    panel.set_xscale("log")
    panel.set_ylim(bottom=0)
    panel.set_xlabel("cameras, at the same number of polls a second")
    panel.set_ylabel("CPU of a picture, ms")
    panel.legend(frameon=False)
    _save(figure, folder / "growth.svg")


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, metadata=WITHOUT_DATE)
    plt.close(figure)
