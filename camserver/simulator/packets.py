"""The packets of a simulated picture, with the camera's quirks and faults, and their transport."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator, Sequence

from camserver.rtsp.rtp import RtpSender
from camserver.simulator.camera import Fault, SimulatedCamera
from camserver.simulator.quirks import markers, non_video_packets, padded
from camserver.simulator.quirks import payloads as as_camera_makes_them


def picture_packets(
    camera: SimulatedCamera,
    fault: Fault,
    rtp: RtpSender,
    payloads: Sequence[bytes],
    stamp: int,
    *,
    keyframe: bool,
) -> list[bytes]:
    """The RTP packets of one picture, with the camera's quirks and faults."""
    if keyframe and fault.kind == "damage":
        payloads = [p[:20] + bytes(len(p) - 20) if len(p) > 200 else p for p in payloads]
    made = as_camera_makes_them(camera.quirks, camera.codec, list(payloads))
    marked = zip(made, markers(camera.quirks, camera.codec, made), strict=True)
    packets = [rtp.packet(payload, stamp, marker=marker) for payload, marker in marked]
    if "padding-lie" in camera.quirks:
        packets = [padded(packet) for packet in packets]
    if fault.kind == "reorder":
        for i in range(len(packets) - 1):
            if camera.random.random() < fault.number:
                packets[i], packets[i + 1] = packets[i + 1], packets[i]
    return packets


def packets_that_arrive(
    camera: SimulatedCamera, fault: Fault, packets: Sequence[bytes]
) -> Iterator[bytes]:
    """The packets that arrive: without lost packets, with other packets between them."""
    for number, packet in enumerate(packets):
        if fault.kind != "loss" or camera.random.random() >= fault.number:
            yield packet
        if number % 3 == 1:
            yield from non_video_packets(camera.quirks, number)
            if "repeats" in camera.quirks:
                yield packet


async def udp_endpoint(local: str, host: str, port: int) -> asyncio.DatagramTransport:
    """A UDP port at the address `local` that sends to `port` of `host`."""
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        asyncio.DatagramProtocol, (local, 0), (host, port)
    )
    return transport


def reset(transport: asyncio.Transport) -> None:
    """End a TCP connection by RST instead of FIN."""
    linger = struct.pack("ii", 1, 0)
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    transport.abort()
