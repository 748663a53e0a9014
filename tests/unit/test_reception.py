"""The receiving side with cameras' habits.

Each is understood, and none lets a picture with a hole through.
"""

from __future__ import annotations

import base64
import io
import struct

import pytest
from films import FILMS, PPS, SPS, h264_film, packets, slices
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from camserver.rtsp.access_unit import AccessUnit, PictureAssembler
from camserver.rtsp.bitstream import RECOVERY_POINT, split_annex_b
from camserver.rtsp.jpeg import JpegDepacketiser
from camserver.rtsp.nal import H264Depacketiser, H265Depacketiser
from camserver.rtsp.receive import RtpPacket
from camserver.rtsp.reception import MAX_SENDERS, Reception
from camserver.rtsp.rtp import RtpSender, h264_payloads, jpeg_payloads
from camserver.rtsp.sdp import Track, control_from_root, control_url, parse_sdp

TRACK = Track("video", 96, "H264")


def wire(stream: list[RtpPacket], payload_type: int = 96) -> list[bytes]:
    return [
        struct.pack(">BBHII", 0x80, payload_type | p.marker << 7, p.sequence, p.timestamp, p.ssrc)
        + p.payload
        for p in stream
    ]


def received(data: list[bytes], track: Track = TRACK) -> list[AccessUnit]:
    reception = Reception(track, proof=None, others=frozenset(), unordered=False)
    return [picture for packet in data for picture in reception.packet(packet, 0.0)]


def keys(found: list[AccessUnit]) -> list[list[bytes]]:
    return [slices(split_annex_b(p.data)) for p in found if p.key and p.whole]


FILM = FILMS["h264"]
WANTED = [slices(nals) for nals in FILM[::3]]
AUDIO = struct.pack(">BBHII", 0x80, 8, 7, 5, 0x99) + b"\xd5" * 160
RTCP = struct.pack(">BBHI", 0x80, 201, 1, 7)


@pytest.mark.parametrize(
    "other",
    [
        AUDIO,
        RTCP,
        struct.pack(">BBHII", 0x80, 50, 3, 5, 1) + bytes(20),
        struct.pack(">BBHII", 0x80, 96, 3, 5, 0x77) + b"\x09\xf0",
        b"\x00\x01",
        b"",
    ],
)
def test_others_on_the_channel_cost_no_picture(other: bytes) -> None:
    data = [each for packet in wire(packets(FILM, "h264")) for each in (packet, other)]
    assert keys(received(data)) == WANTED


def test_another_payload_type_than_the_description_names_is_taken() -> None:
    assert keys(received(wire(packets(FILM, "h264"), 99))) == WANTED


def test_repeats_cost_no_picture_and_a_second_packet_of_a_number_does() -> None:
    data = wire(packets(FILM, "h264"))
    assert keys(received([each for packet in data for each in (packet, packet)])) == WANTED
    twisted = [each for packet in data for each in (packet, packet[:-1] + bytes((packet[-1] ^ 1,)))]
    assert keys(received(twisted)) == []


def test_so_many_senders_are_remembered_and_no_more() -> None:
    reception = Reception(TRACK, proof=None, others=frozenset(), unordered=True)
    for ssrc in range(1000):
        list(
            reception.packet(
                struct.pack(">BBHII", 0x80, 96, 1, 1, ssrc) + b"\x65\x88" + bytes(40), 0.0
            )
        )
    assert len(reception._senders) == len(reception._reorder) == MAX_SENDERS


def test_a_timestamp_for_each_slice_is_one_picture() -> None:
    film, stream, clock = h264_film(7, slices=3), [], 0
    sender = RtpSender(96, 1, 9)
    for nals in film:
        for nal in nals:
            clock += 100
            for payload in h264_payloads([nal], limit=200):
                packet = RtpPacket.parse(sender.packet(payload, clock, marker=False))
                assert packet is not None
                stream.append(packet)
    assembler = PictureAssembler(H264Depacketiser((SPS, PPS)))
    found = keys([p for packet in stream for p in assembler.feed(packet)])
    assert found == [slices(nals) for nals in film[:6:3]]


def fragments(payload: bytes, habit: str) -> list[bytes]:
    """What a camera with this habit sends for one fragment."""
    unmarked = {"no end bits": 0xBF, "no start bits": 0x7F}
    if habit in unmarked:
        return [bytes((payload[0], payload[1] & unmarked[habit])) + payload[2:]]
    if habit == "empty end" and payload[1] & 0x40:
        return [bytes((payload[0], payload[1] & 0xBF)) + payload[2:], payload[:2]]
    return [payload]


def units(payload: bytes, habit: str) -> list[bytes]:
    """The same for a payload that is one unit."""
    broken = [b"\x06\x05\xa2" + b"\x11" * 60] if payload[0] & 0x1F == 7 else []
    return {
        "start code": [b"\0\0\0\1" + payload],
        "short start code": [b"\0\0\1" + payload],
        "unknown": [b"\x1f" + b"v" * 40, payload, b"\x00x", b"\x1ex"],
        "aggregates": [b"\x78" + struct.pack(">H", len(payload)) + payload + bytes(3)],
        "side information": [*broken, payload],
    }.get(habit, [payload])


def spoiled(payload: bytes, habit: str) -> list[bytes]:
    """The payloads that a camera with this habit sends for one."""
    return (fragments if payload[0] & 0x1F == 28 else units)(payload, habit)


HABITS = [
    "no end bits",
    "no start bits",
    "empty end",
    "start code",
    "short start code",
    "unknown",
    "aggregates",
    "side information",
]


def habitual(habit: str) -> list[bytes]:
    sender, data = RtpSender(96, 1, 65500), []
    for number, nals in enumerate(FILM):
        payloads = [
            each for payload in h264_payloads(nals, limit=200) for each in spoiled(payload, habit)
        ]
        data += [
            sender.packet(p, number * 3000, marker=i == len(payloads) - 1)
            for i, p in enumerate(payloads)
        ]
    return data


@pytest.mark.parametrize("habit", HABITS)
def test_units_as_cameras_make_them(habit: str) -> None:
    assert keys(received(habitual(habit)))[-2:] == WANTED[-2:]


@settings(max_examples=300)
@given(st.data(), st.sampled_from(HABITS))
def test_with_no_habit_a_picture_with_a_hole_is_whole(data: st.DataObject, habit: str) -> None:
    """Packets lost or doubled anywhere, joining anywhere."""
    stream = habitual(habit)
    stream = stream[data.draw(st.integers(0, len(stream) - 1)) :]
    for lost in sorted(
        data.draw(st.sets(st.integers(0, len(stream) - 1), max_size=6)), reverse=True
    ):
        del stream[lost]
    for _ in range(data.draw(st.integers(0, 3))):
        if stream:
            at = data.draw(st.integers(0, len(stream) - 1))
            stream.insert(data.draw(st.integers(at, len(stream))), stream[at])
    for found in keys(received(stream)):
        assert found in WANTED


def test_a_picture_of_i_slices_is_a_key_picture() -> None:
    """It refers to no other; a decoder is told so by a recovery point.

    One P slice in it, and it is none.
    """
    # First_mb 0 and 1, slice types 7 and 7
    intra = [b"\x61\x88" + b"\x55" * 50, b"\x61\x42\x20" + b"\x55" * 50]
    depacketiser = H264Depacketiser((SPS, PPS))
    for nal in intra:
        depacketiser.add(nal)
    data, key, complete = depacketiser.finish()
    assert (key, complete) == (True, True)
    assert split_annex_b(data) == [SPS, PPS, RECOVERY_POINT, *intra]
    depacketiser.add(b"\x61\x46" + b"\x55" * 50)
    assert not depacketiser.finish()[1]


def test_decoding_order_numbers_are_taken_out() -> None:
    depacketiser = H265Depacketiser(
        (b"\x40\x01\x0c", b"\x42\x01\x01", b"\x44\x01\xc1"), order_numbers=True
    )
    depacketiser.add(b"\x26\x01" + b"\0\7" + b"\x80abc")
    depacketiser.add(b"\x62\x01\x93" + b"\0\x08" + b"\x10de")  # first fragment
    depacketiser.add(b"\x62\x01\x53" + b"fg")  # last fragment
    depacketiser.add(
        b"\x60\x01" + b"\0\x09" + b"\0\6\x26\x01\x10hij" + b"\1" + b"\0\6\x26\x01\x10klm"
    )
    found = split_annex_b(depacketiser.finish()[0])[3:]
    assert found == [
        b"\x26\x01\x80abc",
        b"\x26\x01\x10defg",
        b"\x26\x01\x10hij",
        b"\x26\x01\x10klm",
    ]


def test_padding_that_is_none_and_header_extensions() -> None:
    head = struct.pack(">HII", 1, 2, 3)
    for last, kept in ((200, b"abc\xc8"), (0, b"abc\0"), (2, b"ab")):
        packet = RtpPacket.parse(b"\xa0\x60" + head + b"abc" + bytes((last,)))
        assert packet is not None
        assert packet.payload == kept
    packet = RtpPacket.parse(b"\x90\x60" + head + b"\xff\xd8\0\1wxyz" + b"abc")
    assert packet is not None
    assert (packet.payload, packet.extension) == (b"abc", (0xFFD8, b"wxyz"))


def large_jpeg() -> tuple[bytes, list[bytes]]:
    """A JPEG of 2560x64, and its payloads with no room for the width."""
    file = io.BytesIO()
    Image.effect_noise((2560, 64), 60).convert("RGB").save(file, "JPEG", quality=60, subsampling=2)
    small = io.BytesIO()
    Image.open(file).save(small, "JPEG", quality=60, subsampling=2)
    data = small.getvalue()
    frame = data.index(b"\xff\xc0")
    pretended = data[: frame + 7] + struct.pack(">H", 1280) + data[frame + 9 :]
    return data, [p[:6] + b"\0" + p[7:] for p in jpeg_payloads(pretended, limit=900)]


@pytest.mark.parametrize("how", ["description", "extension", "nowhere"])
def test_large_jpeg(how: str) -> None:
    sent, payloads = large_jpeg()
    depacketiser = JpegDepacketiser((2560, 64) if how == "description" else None)
    if how == "extension":
        frame = b"\xff\xc0\0\x11\x08" + struct.pack(">HH", 64, 2560) + b"\3\1\x22\0\2\x11\1\3\x11\1"
        depacketiser.add_extension(0xFFD8, frame + b"\xff" * (-len(frame) % 4))
    for payload in payloads:
        depacketiser.add(payload)
    data, _, complete = depacketiser.finish()
    if how == "nowhere":
        assert not complete
        assert "2040" in depacketiser.obstacle
    else:
        assert complete
        assert Image.open(io.BytesIO(data)).tobytes() == Image.open(io.BytesIO(sent)).tobytes()


def test_tables_that_never_come_are_named() -> None:
    depacketiser = JpegDepacketiser()
    depacketiser.add(bytes((0, 0, 0, 0, 1, 255, 8, 8, 0, 0, 0, 0)) + b"scan")
    assert not depacketiser.finish()[2]
    assert "tables" in depacketiser.obstacle


@pytest.mark.parametrize(
    "fmtp",
    [
        "a=fmtp:96 packetization-mode=1;sprop-parameter-sets={sps},{pps}",
        "a=fmtp: 96 sprop-parameter-sets={sps},{pps}",
        "a=fmtp:96 packetization-mode=1\r\na=fmtp:96 sprop-parameter-sets={sps},{pps}",
        "a=fmtp:96 sprop-parameter-sets={sps},{pps}&",
        "a=fmtp:96 sprop-parameter-sets={both}",
        "A=fmtp:96 x\r\na=fmtp:96 Sprop-Parameter-Sets = {sps},{pps}",
    ],
)
def test_parameter_sets_of_any_description(fmtp: str) -> None:
    texts = {"sps": SPS, "pps": PPS, "both": SPS + b"\0\0\1" + PPS}
    line = fmtp.format(**{name: base64.b64encode(data).decode() for name, data in texts.items()})
    track = parse_sdp(
        f"v=0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n{line}\r\n".encode()
    ).video()
    assert track is not None
    assert track.parameter_sets() == [SPS, PPS]


def test_controls_that_are_queries_or_paths() -> None:
    assert control_url("rtsp://cam:554/live", "?ctype=video") == "rtsp://cam:554/live?ctype=video"
    assert control_from_root("rtsp://cam:554/live", "/live/track1") == "rtsp://cam:554/live/track1"
    assert control_from_root("rtsps://cam/a/b/", "/x") == "rtsps://cam/x"
    assert control_from_root("rtsp://cam/live", "track1") is None


@pytest.mark.parametrize(
    ("line", "dimensions"),
    [
        ("a=x-dimensions:2560,1440", (2560, 1440)),
        ("a=x-dimensions: 2560 , 1440", (2560, 1440)),
        ("a=framesize:26 2560-1440", (2560, 1440)),
        ("a=x-dimensions:0,0", None),
        ("a=x-dimensions:99999,99999", None),
        ("a=x-dimensions:x", None),
    ],
)
def test_dimensions(line: str, dimensions: tuple[int, int] | None) -> None:
    track = parse_sdp(f"m=video 0 RTP/AVP 26\r\n{line}\r\n".encode()).video()
    assert track is not None
    assert track.dimensions == dimensions
