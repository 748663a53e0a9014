"""Films of synthetic NAL units, and their RTP packets, for tests of the receiving side."""

from __future__ import annotations

import random

from camserver.rtsp.receive import RtpPacket
from camserver.rtsp.rtp import RtpSender, h264_payloads, h265_payloads

SPS, PPS = b"\x67\x42\x00\x1e\xab", b"\x68\xce\x3c\x80"
SUFFIX_SEI, FILLER = b"\x50\x01\x84", b"\x4c\x01\xff"
VPS5, SPS5, PPS5 = b"\x40\x01\x0c", b"\x42\x01\x01", b"\x44\x01\xc1"


def noise(count: int, seed: int) -> bytes:
    made = random.Random(seed)
    return bytes(made.randrange(1, 256) for _ in range(count))


def h264_film(pictures: int, *, slices: int = 2) -> list[list[bytes]]:
    """NAL units by picture. Every third picture is a key picture with parameter sets."""
    film = []
    for number in range(pictures):
        key = number % 3 == 0
        # P slices refer to the previous picture
        first, later = (0x88, 0x08) if key else (0x98, 0x46)
        nals = [
            bytes((0x65 if key else 0x61, first if part == 0 else later))
            + noise(700, number * 10 + part)
            for part in range(slices)
        ]
        film.append([SPS, PPS, *nals] if key else nals)
    return film


def h265_film(pictures: int) -> list[list[bytes]]:
    film = []
    for number in range(pictures):
        key = number % 3 == 0
        kind = 19 if key else 1
        nals = [
            bytes((kind << 1, 1, 0x80 if part == 0 else 0x10)) + noise(700, number * 10 + part)
            for part in range(2)
        ]
        film.append([VPS5, SPS5, PPS5, *nals] if key else nals)
    return film


def packets(
    film: list[list[bytes]], codec: str, *, markers: str = "picture", clock: int = 3000
) -> list[RtpPacket]:
    """The RTP packets of a film.

    `markers` sets the marker bit on the last packet of each "picture", of each "unit", or "never".
    """
    sender, made = RtpSender(96, 1, 65500), []
    pack = h264_payloads if codec == "h264" else h265_payloads
    for number, nals in enumerate(film):
        for unit, nal in enumerate(nals):
            payloads = list(pack([nal], limit=200))
            for i, payload in enumerate(payloads):
                last = i == len(payloads) - 1 and (
                    markers == "unit" or (markers == "picture" and unit == len(nals) - 1)
                )
                packet = RtpPacket.parse(sender.packet(payload, number * clock, marker=last))
                assert packet is not None
                made.append(packet)
    return made


def slices(nals: list[bytes]) -> list[bytes]:
    return [nal for nal in nals if nal not in (SPS, PPS, VPS5, SPS5, PPS5, SUFFIX_SEI, FILLER)]


FILMS = {"h264": h264_film(9), "h265": h265_film(9)}
