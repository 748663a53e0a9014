"""Cameras made from the bytes of a fuzzer, and what our code must do with them.

Each function of TARGETS takes bytes, and raises AssertionError when our code does not keep what it
promises. The hypothesis tests (`make test`) and the coverage-guided tests (`make fuzz`) share them.
"""

from __future__ import annotations

from collections.abc import Callable

from fuzzed import description, http, packets, session

TARGETS: dict[str, Callable[[bytes], None]] = {
    "session": session.talk,
    "description": description.read,
    "packets": packets.assemble,
    "http": http.get,
}
