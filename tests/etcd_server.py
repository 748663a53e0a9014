"""A real etcd for tests: one node, or a cluster, all on loopback."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

from support import free_port, until


class Etcd:
    """One node, with its data in a folder."""

    def __init__(self, folder: Path, name: str = "default") -> None:
        self.name = name
        self.port, peer = free_port(), free_port()
        self.peer = f"http://127.0.0.1:{peer}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, *more: str) -> None:
        self.launch({self.name: self.peer}, *more)
        self.wait()

    def launch(self, cluster: dict[str, str], *more: str) -> None:
        """Start it, in a cluster of nodes with these names and peer URLs."""
        self._process = subprocess.Popen(
            [
                "etcd",
                f"--name={self.name}",
                f"--data-dir={self._folder / f'data-{self.name}'}",
                f"--listen-client-urls={self.url}",
                f"--advertise-client-urls={self.url}",
                f"--listen-peer-urls={self.peer}",
                f"--initial-advertise-peer-urls={self.peer}",
                f"--initial-cluster={','.join(f'{n}={url}' for n, url in cluster.items())}",
                *more,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def wait(self) -> None:
        """Wait until it answers."""
        until(lambda: self.control("endpoint/health") == 0, 60, "etcd")

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


class EtcdCluster:
    """Several nodes, each with its own folder."""

    def __init__(self, folder: Path, nodes: int = 1) -> None:
        self.nodes = [Etcd(folder, f"node{n}") for n in range(nodes)]
        self._peers = {node.name: node.peer for node in self.nodes}

    def start(self) -> None:
        for node in self.nodes:
            node.launch(self._peers)
        for node in self.nodes:
            node.wait()

    def restart(self, node: Etcd) -> None:
        """Start a node that was stopped."""
        node.launch(self._peers)

    def leader(self) -> Etcd:
        """The node that leads now."""
        for node in self.nodes:
            call = ["curl", "-sf", "-m", "2", "-d", "{}", f"{node.url}/v3/maintenance/status"]
            done = subprocess.run(call, check=False, capture_output=True)
            if done.returncode == 0:
                status = json.loads(done.stdout)
                if status["leader"] == status["header"]["member_id"]:
                    return node
        raise AssertionError("no node leads")

    def signal(self, number: int) -> None:
        for node in self.nodes:
            node.signal(number)

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()
