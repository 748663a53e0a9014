"""One camera, one picture: camserver beside other programs and beside the limits.

    bench_snapshot.py [--rounds N] [--scene NAME ...] [--json FILE]

In each round every contender has one turn, in another order each time, so that all meet the same
disturbances. A live film is joined by all at the same moment of its group of pictures, in each
round at another one. Medians of all rounds; ratios are medians of the rounds' ratios. A scene
differs from the first one in one or two things (SCENES). What is measured is said in contenders.py,
and what the limits are in limits.py. FILE keeps the scenes of earlier runs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import asdict, astuple, dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from coded_films import SIZES, Film, encode
from contenders import (
    SMALL_PROBE,
    Contender,
    LeastBytes,
    Measured,
    NoPictureError,
    Ours,
    WarmPeer,
    ffmpeg,
    gst_launch,
)
from machine import machine
from rtsp_servers import aio_toolkit, gstreamer, simulator, slow_link

from camserver.host.loop import run_loop

OURS, FIRST = "camserver", "camserver, first poll"
BYTES, FIRST_BYTES, DECODING = "limit: bytes", "limit: bytes, first poll", "limit: decoding"


SIMULATOR = "our simulator"
"""Its films are live, so clients join in the middle of a group of pictures. They are flat."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A film at a server. `round_trip_ms` is how far away the server is."""

    film: Film
    server: str = "GStreamer"
    round_trip_ms: int = 0

    @property
    def title(self) -> str:
        film = self.film
        codec = {"h264": "H.264", "h265": "H.265"}[film.codec]
        words = [codec, film.size, f"a keyframe each {film.gop_s} s"]
        words += ["B-pictures, no timestamps"] if film.bare else []
        words += [self.server] if self.server != "GStreamer" else []
        words += [f"{self.round_trip_ms} ms away"] if self.round_trip_ms else []
        words += ["joined in the middle"] if self.is_live else []
        return ", ".join(words)

    @property
    def is_live(self) -> bool:
        """Whether all clients see the same moment of the film."""
        return self.server == SIMULATOR

    async def moment(self, share: float) -> None:
        """Wait until this share of the group of pictures of a live film is over."""
        if self.is_live:
            await asyncio.sleep((share * self.film.gop_s - time.time()) % self.film.gop_s)


SCENES = {
    "plain": Scene(Film()),
    "h265": Scene(Film("h265")),
    "4k": Scene(Film(size="4K")),
    "4k-h265": Scene(Film("h265", "4K")),
    "gop-4s": Scene(Film(gop_s=4)),
    "bare": Scene(Film(bare=True)),
    "joined": Scene(Film(), server=SIMULATOR),
    "joined-h265": Scene(Film("h265"), server=SIMULATOR),
    "aio": Scene(Film(), server="aio-rtsp-toolkit"),
    "20ms": Scene(Film(), round_trip_ms=20),
    "20ms-h265": Scene(Film("h265"), round_trip_ms=20),
    "100ms": Scene(Film(), round_trip_ms=100),
    "100ms-h265": Scene(Film("h265"), round_trip_ms=100),
}


@contextmanager
def served(scene: Scene, folder: Path) -> Iterator[str]:
    """The URL of a scene."""
    film = scene.film
    with ExitStack() as stack:
        if scene.is_live:
            url = stack.enter_context(simulator(folder, SIZES[film.size], film.gop_s))[film.codec]
        elif scene.server == "GStreamer":
            (url,) = stack.enter_context(gstreamer([encode(film, folder)]))
        else:
            url = stack.enter_context(aio_toolkit(encode(film, folder)))
        if scene.round_trip_ms:
            url = stack.enter_context(slow_link(url, scene.round_trip_ms))
        yield url


async def contenders(url: str, folder: Path, stack: AsyncExitStack) -> dict[str, Contender]:
    """Everyone who takes pictures of `url`, by name. They end with `stack`."""
    ours = Ours(url, folder, "native")
    stack.push_async_callback(ours.close)
    made: dict[str, Contender] = {
        OURS: ours,
        FIRST: Ours(url, folder, "native", cold=True),
        "camserver, libav": Ours(url, folder, "libav"),
        "ffmpeg": ffmpeg(url, folder / "a.jpg"),
        "ffmpeg, small probe": ffmpeg(url, folder / "b.jpg", *SMALL_PROBE),
        "gst-launch": gst_launch(url, folder / "c.jpg"),
        "PyAV": WarmPeer("pyav", url, folder / "d.jpg"),
        "OpenCV": WarmPeer("opencv", url, folder / "e.jpg"),
        "asyncio + ffmpeg": WarmPeer("asyncio", url, folder / "f.jpg"),
        FIRST_BYTES: LeastBytes(url, cold=True),
        BYTES: LeastBytes(url, cold=False),
        DECODING: WarmPeer("bare", str(await ours.access_unit(folder)), folder / "g.jpg"),
    }
    for one in made.values():
        if one is not ours:
            stack.push_async_callback(one.close)
    return made


@dataclass(slots=True)
class Turns:
    """What a contender did, round by round. None: it gave no picture, and `why`."""

    measured: list[Measured | None]
    why: str = ""

    def summary(self, ours: Turns) -> dict[str, Any]:
        """Medians, how often there was no picture, and ratios to `ours` of the same rounds."""
        good = [m for m in self.measured if m is not None]
        pairs = [
            (m, o)
            for m, o in zip(self.measured, ours.measured, strict=True)
            if m is not None and o is not None
        ]
        found: dict[str, Any] = {"failed": len(self.measured) - len(good), "why": self.why}
        if not good or not pairs:
            return found | {"medians": None}
        columns = zip(*map(astuple, good), strict=True)
        return found | {
            "medians": asdict(Measured(*(statistics.median(column) for column in columns))),
            "wall_ratio": statistics.median(m.wall_s / o.wall_s for m, o in pairs),
            "cpu_ratio": statistics.median(m.cpu_s / o.cpu_s for m, o in pairs),
        }


async def compare(scene: Scene, url: str, folder: Path, rounds: int) -> dict[str, Any]:
    """The results of a scene, as JSON. The first round warms everyone, and is not counted."""
    order = random.Random(scene.title)  # the same in each run
    async with AsyncExitStack() as stack:
        who = await contenders(url, folder, stack)
        turns = {name: Turns([]) for name in who}
        for number in range(rounds + 1):
            for name in order.sample(list(who), len(who)):
                await scene.moment(number / (rounds + 1))
                measured = await _turn(who[name], turns[name])
                if number:
                    turns[name].measured.append(measured)
            print(f"\r  round {number} of {rounds}", end="", file=sys.stderr, flush=True)
        least = {
            name: asdict(one.newest)
            for name, one in who.items()
            if isinstance(one, LeastBytes) and one.newest is not None
        }
    return {
        "title": scene.title,
        "machine": machine(folder),
        "rounds": rounds,
        "least": least,
        "contenders": {name: one.summary(turns[OURS]) for name, one in turns.items()},
    }


async def _turn(contender: Contender, turns: Turns) -> Measured | None:
    try:
        return await contender.shot()
    except NoPictureError as error:
        turns.why = str(error)
        return None


def show(scene: dict[str, Any]) -> None:
    print(f"\r{scene['title']}, {scene['rounds']} rounds")
    for name, result in scene["contenders"].items():
        m = result["medians"]
        if m is None:
            print(f"  {name:26} no picture: {result['why']}")
            continue
        line = f"  {name:26} {m['wall_s'] * 1000:7.0f} ms wall {result['wall_ratio']:6.1f}x"
        line += f"  {m['cpu_s'] * 1000:7.1f} ms CPU {result['cpu_ratio']:6.1f}x"
        line += f"  done {m['done_s'] * 1000:7.0f} ms {m['kilobytes']:5.0f} KB"
        if result["failed"]:
            line += f"   {result['failed']} without a picture: {result['why']}"
        print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--scene", action="append", choices=SCENES, help="only this; may repeat")
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    a = parser.parse_args()
    found = json.loads(a.json.read_text()) if a.json and a.json.exists() else {}
    for key in a.scene or SCENES:
        with (
            tempfile.TemporaryDirectory() as name,
            served(SCENES[key], folder := Path(name)) as url,
        ):
            found[key] = run_loop(partial(compare, SCENES[key], url, folder, a.rounds))
        show(found[key])
        if a.json:
            ordered = {key: found[key] for key in SCENES if key in found}
            a.json.write_text(json.dumps(ordered, indent=1) + "\n")


if __name__ == "__main__":
    main()
