"""Many names are looked up beside one another, and a dead DNS ends nothing but its own look-up."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import pytest

from camserver.cli import doctor_leases
from camserver.host.loop import Loop


def test_names_that_hang_are_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is found in time is told; the others, and names that can be none, are not."""
    hang, known = threading.Event(), {"gate": "192.0.2.10", "yard": "192.0.2.20"}

    def getaddrinfo(name: str, *_: Any, **__: Any) -> list[Any]:
        if name in known:
            return [(0, 0, 0, "", (known[name], 0))]
        if name == "hangs":
            hang.wait()
        if name == "a..b":
            "a..b".encode("idna")
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with asyncio.Runner(loop_factory=Loop) as runner:
        try:
            assert runner.run(doctor_leases._addresses({*known, "a..b", "nobody"})) == {
                "gate": {"192.0.2.10"},
                "yard": {"192.0.2.20"},
            }
            monkeypatch.setattr(doctor_leases, "NAMES_S", 0.2)
            assert "hangs" not in runner.run(doctor_leases._addresses({"hangs", "gate"}))
        finally:
            hang.set()
