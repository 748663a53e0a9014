"""What cameras that flood cost the others: 30 healthy cameras, alone and beside two of each kind.

    bench_floods.py [--seconds S] [--kinds KIND ...]

For each kind of flood a daemon polls 30 simulated cameras once a second, and two cameras that
flood. Printed are the pictures of the healthy cameras compared with a run without floods (the
control, once before and once after), and how late the daemon answers a request that needs only the
event loop: the median and the 99th percentile. The floods use cores, too, and all share them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

FLOODS = Path(__file__).parents[1] / "floods.py"
HEALTHY = 30
sys.path[:0] = [str(FLOODS.parent), str(Path(__file__).parent)]
from daemon_socket import DaemonConnection  # noqa: E402
from floods import KINDS, is_http  # noqa: E402


@contextlib.contextmanager
def process(*command: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def run(folder: Path, cameras: str, flooding: str, seconds: float) -> tuple[int, list[float]]:
    """(pictures of the healthy cameras, seconds that requests took)."""
    config, api = folder / "c.toml", folder / "api.sock"
    config.write_text(
        f'[http]\nlisten = ""\n[api]\nsocket = "{api}"\n[log]\nlevel = "error"\n'
        f'[output]\ndirectory = "{folder}/out"\narchive = ""\nfsync = false\n'
        f"[polling]\nopen_rate = 100\n{cameras}\n{flooding}"
    )
    command = [sys.executable, "-m", "camserver", "run", "--config", str(config)]
    with subprocess.Popen(command) as daemon:
        time.sleep(5)
        connection = DaemonConnection(api)
        before, lags = pictures(connection), []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            begun = time.monotonic()
            connection.text("/healthz")
            lags.append(time.monotonic() - begun)
            time.sleep(0.02)
        after = pictures(connection)
        daemon.terminate()
        daemon.wait()
    return after - before, lags


def pictures(connection: DaemonConnection) -> int:
    return sum(
        camera["polling"]["results"].get("ok", 0)
        for camera in json.loads(connection.text("/v1/cameras"))
        if camera["id"].startswith("cam")
    )


def show(kind: str, taken: int, control: int, lags: list[float]) -> None:
    p99 = statistics.quantiles(lags, n=100)[98]
    print(
        f"{kind:18} {taken:5} pictures ({100 * taken / max(1, control):3.0f} %)   lag: median"
        f" {1000 * statistics.median(lags):5.1f} ms, p99 {1000 * p99:6.1f} ms",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--kinds", nargs="*", default=KINDS)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        inventory = folder / "cameras.toml"
        stack.enter_context(
            process(
                *(sys.executable, "-m", "camserver", "simulate", f"--cameras={HEALTHY}"),
                *("--base-port=0", "--until-eof", f"--inventory={inventory}"),
            )
        )
        floods = stack.enter_context(process(sys.executable, str(FLOODS)))
        assert floods.stdout is not None
        ports = dict(floods.stdout.readline().split() for _ in KINDS)
        while not inventory.exists():
            time.sleep(0.05)
        cameras = inventory.read_text().replace('"5s"', '"1s"')
        control, lags = run(folder, cameras, "", a.seconds)
        show("control", control, control, lags)
        for kind in a.kinds:
            url = "snapshot_url = 'http" if is_http(kind) else "url = 'rtsp"
            flooding = "".join(
                f"[[camera]]\nid = 'flood{n}'\n{url}://127.0.0.1:{ports[kind]}/{n}'\n"
                f"device = 'flood{n}'\ninterval = '1s'\nengine = 'native'\n"
                for n in range(2)
            )
            show(kind, *swap(run(folder, cameras, flooding, a.seconds), control))
        taken, lags = run(folder, cameras, "", a.seconds)
        show("control again", taken, control, lags)


def swap(measured: tuple[int, list[float]], control: int) -> tuple[int, int, list[float]]:
    return measured[0], control, measured[1]


if __name__ == "__main__":
    main()
