"""A real etcd of one node, for tests."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

from support import free_port, until


class Etcd:
    """A server of one node, with its data in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port, self._peer = free_port(), free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, *more: str) -> None:
        peer = f"http://127.0.0.1:{self._peer}"
        self._process = subprocess.Popen(
            [
                "etcd",
                f"--data-dir={self._folder / 'data'}",
                f"--listen-client-urls={self.url}",
                f"--advertise-client-urls={self.url}",
                f"--listen-peer-urls={peer}",
                f"--initial-advertise-peer-urls={peer}",
                f"--initial-cluster=default={peer}",
                *more,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until(self._answers, 60, "etcd")

    def _answers(self) -> bool:
        return self.control("endpoint/health") == 0

    def control(self, method: str, body: str = "{}") -> int:
        """The exit status of curl for a call of the gateway, or of /health."""
        url = f"{self.url}/health" if "health" in method else f"{self.url}/v3/{method}"
        data = [] if "health" in method else ["-d", body]
        curl = ["curl", "-sf", "-m", "2", "-o", "/dev/null", *data, url]
        return subprocess.run(curl, check=False).returncode

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        stat = Path(f"/proc/{self._process.pid}/stat")
        wanted = number == signal.SIGSTOP  # it stops a moment after the signal was sent
        until(lambda: (stat.read_text().rpartition(")")[2].split()[0] == "T") == wanted)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
