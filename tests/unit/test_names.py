"""Many names are looked up beside one another, and a dead DNS ends nothing but its own look-up."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import pytest

from camserver.host.names import addresses


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
    try:
        assert asyncio.run(addresses([*known, "a..b", "nobody"], 60)) == {
            "gate": {"192.0.2.10"}, "yard": {"192.0.2.20"}, "a..b": set(), "nobody": set()}
        found = asyncio.run(addresses(["hangs", "gate"], 0.2))
        assert found.get("gate", {"192.0.2.10"}) == {"192.0.2.10"}
        assert "hangs" not in found
        assert asyncio.run(addresses([], 60)) == {}
    finally:
        hang.set()
