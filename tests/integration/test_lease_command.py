"""`camserver lease`: a command under a lease, whatever happens to it and to the daemon."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from pathlib import Path

import pytest
from desk import Desk, StartDaemon
from house import StartFleet
from support import children_of

from camserver.client import LeaseClient
from camserver.errors import RtspBusy
from camserver.simulator.camera import SimulatedCamera


async def test_a_command_runs_under_a_lease(tmp_path: Path, daemon: StartDaemon) -> None:
    """Its status and its signals pass through.

    75 when it is busy, 69 without a daemon, 127 for no such command.
    """
    desk = await daemon(interval="100s", unclean_cooldown="300ms")

    async def status(*arguments: str) -> int:
        return await (await desk.run("lease", *arguments)).wait()

    assert await status("cam", "--", "sh", "-c", "exit 7") == 7
    assert await status("cam", "--", "sh", "-c", "kill -TERM $$") == 128 + signal.SIGTERM
    assert await status("cam", "--", "/no/such/command") == 127
    assert await status("other", "--", "true") == 2
    sleeping = await desk.run("lease", "--label", "nap", "cam", "--", "sleep", "1000")
    await desk.until(lambda: [h for h in desk.held() if h["label"] == "nap"])
    assert await status("--wait", "0.1", "cam", "--", "true") == 75
    shown = await desk.run("leases")
    assert b"nap" in (await shown.communicate())[0]
    sleeping.terminate()
    assert await sleeping.wait() == 128 + signal.SIGTERM
    assert await status("--socket", str(tmp_path / "nobody"), "cam", "--", "true") == 69
    assert (
        await status(
            "--socket",
            str(tmp_path / "nobody"),
            "--no-daemon-ok",
            "cam",
            "--",
            "sh",
            "-c",
            "exit 3",
        )
        == 3
    )


async def test_a_lease_is_withdrawn_for_live_view_and_at_its_time(
    tmp_path: Path, daemon: StartDaemon
) -> None:
    """A recorder with priority poll is told to end when live view comes.

    One with a ttl at its time. Both see TERM.
    """
    desk = await daemon(interval="100s", unclean_cooldown="300ms")
    script = 'trap "echo told; exit 5" TERM; echo ready; while :; do sleep 0.05; done'
    for options in (("--priority", "poll"), ("--ttl", "0.5")):
        recorder = await desk.run(
            "lease",
            *options,
            "--wait",
            "60",
            "--label",
            "film",
            "cam",
            "--",
            "sh",
            "-c",
            script,
        )
        assert recorder.stdout is not None
        assert await recorder.stdout.readline() == b"ready\n"
        if "poll" in options:
            async with LeaseClient(desk.socket).lease("cam", wait_s=30) as lease:
                assert recorder.returncode is not None or await recorder.wait()
                assert lease.granted.generation > 1
        out, err = await recorder.communicate()
        assert (out, recorder.returncode) == (b"told\n", 5)
        assert b"withdrawn (" + (b"live view" if "poll" in options else b"its time of 0.5 s") in err


async def test_a_lease_lives_as_long_as_anything_of_its_command(
    tmp_path: Path, daemon: StartDaemon
) -> None:
    """What CMD leaves running in the background still has its session.

    When the wrapper is killed it is, too.
    """
    desk = await daemon(interval="100s", unclean_cooldown="300ms")
    mark = f"{2000 + os.getpid()}.5"
    script = f"sleep {mark} >/dev/null 2>&1 & exit 0"
    for kill_wrapper in (False, True):
        wrapper = await desk.run(
            "lease", "--label", "bg", "--wait", "30", "cam", "--", "setsid", "sh", "-c", script
        )
        await desk.until(lambda: running(mark) and [h for h in desk.held() if h["label"] == "bg"])
        with pytest.raises(RtspBusy):
            async with LeaseClient(desk.socket).lease("cam", wait_s=0.3):
                pass
        assert [h["label"] for h in desk.held()] == ["bg"]
        if kill_wrapper:
            wrapper.kill()
        else:
            await asyncio.to_thread(subprocess.run, ["pkill", "-f", f"^sleep {mark}"], check=True)
        await desk.until(lambda: not desk.held())
        assert not running(mark)
        assert await wrapper.wait() == (-signal.SIGKILL if kill_wrapper else 0)


async def test_signals_reach_the_command_and_what_it_leaves(
    tmp_path: Path, daemon: StartDaemon
) -> None:
    """INT to the wrapper alone ends a film in good order.

    TERM also ends what a shell left waiting.
    """
    desk = await daemon(interval="100s", unclean_cooldown="300ms")
    script = 'trap "exit 9" INT; echo ready; while :; do sleep 0.05; done'
    wrapper = await desk.run("lease", "--wait", "30", "cam", "--", "sh", "-c", script)
    assert wrapper.stdout is not None
    assert await wrapper.stdout.readline() == b"ready\n"
    (guardian,) = children_of(wrapper.pid)
    # As pkill does: the one that counts must not be lost among the others
    os.kill(guardian, signal.SIGINT)
    wrapper.send_signal(signal.SIGINT)
    assert await wrapper.wait() == 9
    mark = f"{3000 + os.getpid()}.5"
    wrapper = await desk.run(
        "lease", "--wait", "30", "cam", "--", "sh", "-c", f"sleep {mark} >/dev/null 2>&1; true"
    )
    await desk.until(lambda: running(mark))
    wrapper.terminate()
    assert await wrapper.wait() == 128 + signal.SIGTERM
    assert not running(mark)


def running(mark: str) -> bool:
    return bool(
        subprocess.run(["pgrep", "-f", f"^sleep {mark}"], check=False, capture_output=True).stdout
    )


async def test_a_killed_wrapper_takes_its_command_with_it(
    tmp_path: Path, daemon: StartDaemon
) -> None:
    """SIGKILL: the command is dead and the lease free, without anybody's help."""
    desk = await daemon(interval="100s")
    mark = f"{1000 + os.getpid()}.25"
    wrapper = await desk.run("lease", "cam", "--", "sleep", mark)
    await desk.until(lambda: [h for h in desk.held() if h["label"] == "sleep"] and running(mark))
    wrapper.kill()
    await desk.until(lambda: not [h for h in desk.held() if h["label"] == "sleep"])
    await desk.until(lambda: not running(mark))


async def test_a_command_outlives_the_daemon_and_has_its_lease_again(
    tmp_path: Path, fleet: StartFleet
) -> None:
    """Restarted in order or killed.

    The command goes on, and no poll opens a session beside it, before or after.
    """
    house = await fleet([SimulatedCamera("cam", "Gate", gop=2)])
    desk = Desk(house, tmp_path)
    desk.write(interval="200ms", lease_wait="100ms")
    record = house.fleet.cameras["cam"].record

    def mine() -> bool:
        return any(held["label"] == "film" for held in desk.held())

    async with desk.daemon():
        wrapper = await desk.run(
            "lease", "--label", "film", "--wait", "60", "cam", "--", "sleep", "1000"
        )
        await desk.until(mine)
        opens = (await house.seen("cam")).opens
    async with desk.daemon() as second:
        await desk.until(mine)
        second.kill()
        await second.wait()
    async with desk.daemon():
        await desk.until(mine)
        # Polls try, and are told to wait
        await desk.until(lambda: desk.client.get("/v1/leases")[0]["busy"])
        assert record.opens == opens
        assert wrapper.returncode is None
        wrapper.terminate()
        assert await wrapper.wait() == 128 + signal.SIGTERM
        await desk.until(lambda: record.opens > opens)


async def test_after_a_restart_too_a_killed_wrapper_takes_everything_with_it(
    tmp_path: Path, fleet: StartFleet
) -> None:
    """Also what the command has started itself.

    No process that may have the session outlives the lease.
    """
    house = await fleet([SimulatedCamera("cam", "Gate", gop=2)])
    desk = Desk(house, tmp_path)
    desk.write(interval="100s", unclean_cooldown="300ms")
    mark = f"{4000 + os.getpid()}.5"

    def mine() -> bool:
        return any(held["label"] == "film" for held in desk.held())

    async with desk.daemon():
        wrapper = await desk.run(
            "lease",
            "--label",
            "film",
            "--wait",
            "60",
            "cam",
            "--",
            "sh",
            "-c",
            f"sleep {mark} >/dev/null 2>&1; true",
        )
        await desk.until(lambda: mine() and running(mark))
    async with desk.daemon():
        await desk.until(mine)
        wrapper.kill()
        await desk.until(lambda: not mine())
        assert not running(mark)
