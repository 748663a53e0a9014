"""libav over UDP sends nothing to an address that the camera names."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from support import camera

from camserver.capture.libav import LibavEngine
from camserver.errors import CameraError
from camserver.workers.template import WorkerTemplate

SDP = (
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\n"
    "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:trackID=0\r\n"
)


async def test_libav_sends_nothing_to_an_address_that_the_camera_names() -> None:
    """With UDP it opens its ports by a packet to the place that SETUP's answer names."""
    heard: list[object] = []

    class Elsewhere(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: object) -> None:
            heard.append((data, addr))

    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Elsewhere, ("127.0.0.99", 0))
    port = transport.get_extra_info("sockname")[1]
    played = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                request = (await reader.readuntil(b"\r\n\r\n")).decode()
                number = request.lower().split("cseq: ")[1].split()[0]
                head = f"RTSP/1.0 200 OK\r\nCSeq: {number}\r\nSession: 1\r\n"
                if request.startswith("DESCRIBE"):
                    head += f"Content-Type: application/sdp\r\nContent-Length: {len(SDP)}\r\n"
                elif request.startswith("SETUP"):
                    client = request.split("client_port=")[1].split()[0]
                    head += (
                        f"Transport: RTP/AVP/UDP;unicast;client_port={client};source=127.0.0.99;"
                        f"destination=127.0.0.99;server_port={port}-{port + 1}\r\n"
                    )
                elif request.startswith("PLAY"):
                    played.set()
                writer.write((head + "\r\n" + SDP * request.startswith("DESCRIBE")).encode())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"rtsp://127.0.0.1:{server.sockets[0].getsockname()[1]}/x"
    target = camera("cam", url=url, engine="libav", transport="udp")
    template = WorkerTemplate()
    engine = LibavEngine(1, template)
    with pytest.raises(CameraError, match="silent after PLAY"):
        await engine.session(target, url, loop.time() + 3).keyframe()
    await engine.close()
    await template.close()
    server.close()
    transport.close()
    assert played.is_set()
    assert heard == []
