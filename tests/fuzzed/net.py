"""An event loop with a virtual clock, whose connections all lead to a camera made from bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from support import VirtualLoop

from fuzzed.script import Script

PIECES = 40
"""How many pieces an answer may be cut into."""


class Camera(Protocol):
    """The camera's side of one connection."""

    def heard(self, data: bytes) -> Iterator[bytes | None]:
        """The answers to what our client has sent. None: the camera closes the connection."""


class Net(VirtualLoop):
    """The loop. `open_transports` and `faults` are looked at when the work is done."""

    def __init__(self, script: Script, camera: Callable[[], Camera]) -> None:
        super().__init__()
        self.script = script
        self.camera = camera
        self.open_transports: set[FakeTransport] = set()
        self.faults: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.faults.append(context))

    async def create_connection(  # type: ignore[override]
        self, factory: Callable[[], Any], *_: Any, **__: Any
    ) -> Any:
        transport = FakeTransport(self, factory())
        return transport, transport.protocol


class FakeTransport(asyncio.Transport):
    """The transport to that camera."""

    def __init__(self, loop: Net, protocol: Any) -> None:
        super().__init__()
        self.loop, self.protocol = loop, protocol
        self.closing = False
        self.camera = loop.camera()
        loop.open_transports.add(self)
        protocol.connection_made(self)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"sockname": ("127.0.0.1", 1), "peername": ("127.0.0.1", 2)}.get(name, default)

    def is_closing(self) -> bool:
        return self.closing

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def get_protocol(self) -> Any:
        return self.protocol

    def write(self, data: Any) -> None:
        for answer in self.camera.heard(bytes(data)):
            if answer is None:
                self.loop.call_soon(self.close)
            else:
                self.loop.call_soon(self._say, answer)

    def pause_reading(self) -> None:
        """Do nothing: data that is already on its way arrives anyway."""

    def resume_reading(self) -> None:
        """Do nothing: no data was held back."""

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            self.loop.call_soon(self._lost)

    abort = close

    def _lost(self) -> None:
        self.loop.open_transports.discard(self)
        self.protocol.connection_lost(None)

    def _say(self, data: bytes) -> None:
        script = self.loop.script
        for _ in range(PIECES):
            if self.closing or not data:
                return
            cut = len(data) if script.over else 1 + script.below(200) * 8
            self.protocol.data_received(data[:cut])
            data = data[cut:]
        if not self.closing and data:
            self.protocol.data_received(data)
