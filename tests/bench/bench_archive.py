"""What a large archive costs: the start, the memory, the housekeeping, a deletion.

    bench_archive.py [--pictures N] [--folder DIR] [--seconds S]

Makes an archive of empty files in DIR, of 50 cameras with a picture every 10 s, and runs a daemon
with one simulated camera on it: without an index, with one, and after kill -9. Printed for each:
seconds from the start to the first picture, memory, and the share of a core. Then a rule deletes
10,000 pictures. DIR needs as many inodes as pictures; it is removed at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

CAMERAS = 50
INTERVAL_S = 10
DELETED = 10_000


def make_archive(directory: Path, pictures: int) -> float:
    """Make the files. Returns the time of the oldest, in seconds since 1970."""
    newest = time.time() - 60
    for camera in range(CAMERAS):
        folder = directory / f"cam{camera:03}"
        folder.mkdir(parents=True)
        (folder / "latest.json").write_text("{}")
        made = ""
        for number in range(pictures // CAMERAS):
            moment = time.gmtime(newest - number * INTERVAL_S)
            day = time.strftime("%Y/%m/%d", moment)
            if day != made:
                (folder / day).mkdir(parents=True)
                made = day
            os.close(os.open(folder / day / time.strftime("%H%M%S.000Z.jpg", moment), os.O_CREAT))
    return newest - (pictures // CAMERAS - 1) * INTERVAL_S


class Measured:
    """A running daemon, measured from outside."""

    def __init__(self, config: Path, log: Path) -> None:
        self._log = log
        self.started = time.monotonic()
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "camserver", "run", "--config", str(config)], stderr=file
            )

    def until(self, text: str, limit_s: float = 3600) -> float:
        """Wait for a text in the log. Returns the seconds since the start."""
        while text not in self._log.read_text():
            assert self.process.poll() is None, self._log.read_text()
            assert time.monotonic() < self.started + limit_s, text
            time.sleep(0.02)
        return time.monotonic() - self.started

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mb(self, key: str = "VmRSS") -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split(f"{key}:")[1].split()[0]) / 1024

    def share_of_a_core(self, seconds: float) -> float:
        before = self.cpu_s()
        time.sleep(seconds)
        return (self.cpu_s() - before) / seconds

    def end(self, how: int = signal.SIGTERM) -> None:
        self.process.send_signal(how)
        self.process.wait()


@contextlib.contextmanager
def simulated(inventory: Path) -> Iterator[None]:
    """One simulated camera, and the inventory that it writes."""
    with subprocess.Popen(
        [
            *(sys.executable, "-m", "camserver", "simulate", "--cameras=1", "--base-port=0"),
            *("--until-eof", f"--inventory={inventory}"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    ) as process:
        while not inventory.exists():
            time.sleep(0.05)
        yield
        assert process.stdin is not None
        process.stdin.close()


def report(what: str, daemon: Measured, first_s: float, share: float) -> None:
    print(
        f"{what:28} first picture {first_s:5.1f} s   memory {daemon.memory_mb():4.0f} MB"
        f" (most {daemon.memory_mb('VmHWM'):4.0f})   {100 * share:5.2f} % of a core",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=5_000_000)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--seconds", type=float, default=60.0)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=a.folder) as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        oldest_s = make_archive(folder / "out", a.pictures)
        print(f"{a.pictures} files made", flush=True)
        stack.enter_context(simulated(folder / "cameras.toml"))
        measure(folder, a.seconds, lambda: time.time() - oldest_s)


def measure(folder: Path, seconds: float, oldest_age_s: Callable[[], float]) -> None:
    cameras = (folder / "cameras.toml").read_text().replace('"5s"', '"100s"')
    config = folder / "c.toml"

    def write(rule: str) -> None:
        config.write_text(
            f'[http]\nlisten = ""\n[api]\nsocket = "{folder}/api.sock"\n'
            f'[output]\ndirectory = "{folder}/out"\n[retention]\nmin_free = 0\n{rule}\n{cameras}'
        )

    write("")
    daemon = Measured(config, folder / "log")
    first_s = daemon.until("from rtsp")
    report("no index: being made", daemon, first_s, daemon.share_of_a_core(seconds))
    made_s = daemon.until("the index of the archive is complete")
    size = (folder / "out/.camserver-index.sqlite").stat().st_size
    print(
        f"index complete after {made_s:.0f} s, {daemon.cpu_s():.0f} s of CPU, {size / 1e6:.0f} MB"
    )
    daemon.end()
    daemon = Measured(config, folder / "log")
    first_s = daemon.until("from rtsp")
    time.sleep(20)  # the workers have started
    report("with its index", daemon, first_s, daemon.share_of_a_core(seconds))
    daemon.end(signal.SIGKILL)
    daemon = Measured(config, folder / "log")
    first_s = daemon.until("from rtsp")
    time.sleep(20)
    report("after kill -9: being checked", daemon, first_s, daemon.share_of_a_core(seconds))
    rule_s = oldest_age_s() - DELETED / CAMERAS * INTERVAL_S
    write(f'max_age = "{rule_s:.0f}s"')
    began = time.monotonic()
    daemon.until(" deleted")
    print(
        f"deletion: {time.monotonic() - began:.1f} s after the inventory was changed: "
        + next(line for line in (folder / "log").read_text().splitlines() if " deleted" in line)
    )
    daemon.end()


if __name__ == "__main__":
    main()
