"""What it costs to look at pictures: bench_health.py [--rounds N] [--size 1080p].

Noisy films of GStreamer's server and the flat pictures of the simulator, polled in turns with
`health = false` and with `health`. CPU is user + system of the daemon's process and its decoder
worker, for a whole picture until it is on the disk. Medians, and the median of the ratios of the
two turns of a round.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from coded_films import SIZES, Film, encode
from contenders import Ours
from rtsp_servers import gstreamer, simulator

from camserver.config import load_inventory
from camserver.health import PictureHealth
from camserver.host.loop import run_loop

LEARNED = 25
"""So many pictures are taken first: then there are scenes to compare with."""


def watched(folder: Path, url: str, health: str) -> PictureHealth:
    """The judge of one camera, `cam`."""
    path = folder / "cameras.toml"
    path.write_text(f'[[camera]]\nid = "cam"\nurl = "{url}"\nhealth = {health}\n')
    return PictureHealth(load_inventory(path), lambda _: None, lambda: folder)


async def compare(url: str, folder: Path, rounds: int) -> list[tuple[float, float]]:
    """CPU seconds of each round: (not judged, judged)."""
    without = Ours(url, folder, "native", watched(folder, url, "false"))
    judged = Ours(url, folder, "native", watched(folder, url, "true"))
    for _ in range(LEARNED):
        await judged.shot()
    await without.shot()
    found = []
    for number in range(rounds):
        turns = [without, judged] if number % 2 else [judged, without]
        cpu_s = {ours: (await ours.shot()).cpu_s for ours in turns}
        found.append((cpu_s[without], cpu_s[judged]))
    await without.close()
    await judged.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--size", choices=SIZES, default="1080p")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        films = {f"GStreamer {codec}": Film(codec, arguments.size, 2) for codec in ("h264", "h265")}
        with (
            gstreamer([encode(film, folder) for film in films.values()]) as urls,
            simulator(folder, SIZES[arguments.size]) as drawn,
        ):
            real = dict(zip(films, urls, strict=True))
            for server, url in (real | drawn).items():
                rounds = run_loop(partial(compare, url, folder, arguments.rounds))
                show(f"{server}, {arguments.size}, {arguments.rounds} rounds", rounds)


def show(title: str, rounds: list[tuple[float, float]]) -> None:
    without, judged = (statistics.median(values) * 1000 for values in zip(*rounds, strict=True))
    ratio = statistics.median(after / before for before, after in rounds)
    print(title)
    print(f"  health = false {without:6.1f} ms CPU")
    print(f"  health         {judged:6.1f} ms CPU   {(ratio - 1) * 100:+.1f} %")


if __name__ == "__main__":
    main()
