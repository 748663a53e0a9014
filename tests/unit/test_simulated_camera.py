"""The simulated camera's own judgement.

Budget, cool-down and record, on a clock that is a number.
"""

from __future__ import annotations

import pytest

from camserver.simulator.camera import FAULTS, Fault, SimulatedCamera
from camserver.simulator.serve import SimulateOptions, make_cameras


def test_one_session_is_one_session() -> None:
    """A second client is refused, counted, and let in after the first has gone."""
    camera = SimulatedCamera("cam", "Cam")
    for client in ("a", "b"):
        camera.opened(0.0)
        assert camera.admit(client, 0.0) == (client == "a")
    camera.torn_down("a")
    camera.closed("a", torn_down=True, now=1.0)
    assert camera.admit("b", 1.0)
    r = camera.record
    assert (r.opens, r.sessions_now, r.sessions_max, r.refused_full, r.ends_clean) == (
        2,
        1,
        2,
        1,
        1,
    )


@pytest.mark.parametrize(("torn_down", "free_at"), [(True, 0.5), (False, 5.0)])
def test_a_session_counts_until_its_cool_down_is_over(torn_down: bool, free_at: float) -> None:
    camera = SimulatedCamera("cam", "Cam", cooldown_s=0.5, unclean_cooldown_s=5.0)
    camera.opened(0.0)
    assert camera.admit("a", 0.0)
    if torn_down:
        camera.torn_down("a")
    camera.closed("a", torn_down=torn_down, now=0.0)
    camera.opened(free_at - 0.1)
    assert not camera.admit("b", free_at - 0.1)
    assert camera.record.early == 1
    camera.closed("b", torn_down=False, now=free_at - 0.1)
    camera.opened(free_at + 0.1)
    assert camera.admit("c", free_at + 0.1)
    assert (camera.record.early, camera.record.ends_without) == (1, 1)


@pytest.mark.parametrize(
    "text", ["nonsense", "stall", "stall:JUMP", "status:x", "loss", "reboot:1", "cut@stream9"]
)
def test_a_fault_that_makes_no_sense_is_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|there are none"):
        Fault.parse(text)


def test_a_fault_may_be_one_streams_alone() -> None:
    fault = Fault.parse("status:404@stream1")
    assert (fault.on("stream1").refuses("DESCRIBE"), fault.on("stream2").refuses("DESCRIBE")) == (
        404,
        None,
    )
    assert Fault.parse("cut").on("stream2").kind == "cut"
    assert set(FAULTS) >= {
        "refuse",
        "deaf",
        "stall",
        "silent",
        "no-keyframe",
        "cut",
        "damage",
        "status",
        "loss",
        "reboot",
    }


def test_a_fleet_is_made_as_asked() -> None:
    cameras = make_cameras(
        SimulateOptions(cameras=3, faults={"*": Fault("deaf"), "cam2": Fault("silent")})
    )
    assert [(c.id, c.codec, c.fault.kind, c.port) for c in cameras] == [
        ("cam1", "h264", "deaf", 8554),
        ("cam2", "h265", "silent", 8555),
        ("cam3", "mjpeg", "deaf", 8556),
    ]
    with pytest.raises(ValueError, match="there is no cam9"):
        make_cameras(SimulateOptions(faults={"cam9": Fault()}))
