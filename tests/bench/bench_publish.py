"""What publishing costs: a picture of 200 KB with and without `fsync`, in turns.

    bench_publish.py [--pictures N] [--folder DIR]

Prints the median and the 99th percentile of a picture in ms, and the CPU of the process.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import statistics
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import simplejpeg

sys.path.insert(0, str(Path(__file__).parents[1]))
from stored import MOMENT, stored_attempt

from camserver.config.output import OutputTable
from camserver.storage import SnapshotStore
from camserver.storage.outcomes import Outcomes

FORMS = (True, False)
BYTES = 200_000


def picture() -> bytes:
    """A JPEG of about 200 KB: noise, so that no disk can compress it."""
    noise = np.random.default_rng(1).integers(0, 255, (360, 480, 3), np.uint8)
    jpeg = simplejpeg.encode_jpeg(noise, quality=80)
    return jpeg[:-2].ljust(BYTES - 2, b"\0") + jpeg[-2:]


async def measure(pictures: int, folder: Path) -> dict[bool, tuple[list[float], float]]:
    """`fsync` -> (seconds of each picture, seconds of CPU in all)."""
    stores = {
        fsync: SnapshotStore(OutputTable(directory=folder / str(fsync), fsync=fsync), Outcomes())
        for fsync in FORMS
    }
    jpeg, took = picture(), {fsync: list[float]() for fsync in FORMS}
    cpu = dict.fromkeys(FORMS, 0.0)
    for number in range(pictures):
        attempt = stored_attempt(MOMENT + timedelta(seconds=10 * number))
        assert attempt.snapshot is not None
        still = dataclasses.replace(attempt.snapshot.still, jpeg=jpeg)
        snapshot = dataclasses.replace(attempt.snapshot, still=still)
        attempt = dataclasses.replace(attempt, snapshot=snapshot)
        for fsync in FORMS if number % 2 else reversed(FORMS):
            begun, used = time.monotonic(), time.process_time()
            assert (await stores[fsync].record(attempt, 0)).attempt.ok
            took[fsync].append(time.monotonic() - begun)
            cpu[fsync] += time.process_time() - used
    return {fsync: (took[fsync], cpu[fsync]) for fsync in FORMS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=300)
    parser.add_argument("--folder", type=Path)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=a.folder) as name:
        for fsync, (took, cpu) in asyncio.run(measure(a.pictures, Path(name))).items():
            print(
                f"fsync = {str(fsync).lower():5}  median {statistics.median(took) * 1e3:5.2f} ms,"
                f" p99 {statistics.quantiles(took, n=100)[98] * 1e3:6.2f} ms,"
                f" CPU {cpu / a.pictures * 1e3:5.2f} ms a picture"
            )


if __name__ == "__main__":
    main()
