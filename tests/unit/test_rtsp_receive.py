"""The receiving half of the core.

Whole pictures are known to be whole, whatever is lost, cut, doubled or made up.
"""

from __future__ import annotations

import io
import tracemalloc

import pytest
from films import FILLER, FILMS, PPS, SPS, SUFFIX_SEI, h264_film, h265_film, noise, packets, slices
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from camserver.rtsp.access_unit import AccessUnit, PictureAssembler
from camserver.rtsp.bitstream import split_annex_b
from camserver.rtsp.jpeg import JpegDepacketiser
from camserver.rtsp.login import Login, LoginCache
from camserver.rtsp.messages import Headers, MessageParser, Request, Response
from camserver.rtsp.nal import H264Depacketiser, H265Depacketiser
from camserver.rtsp.receive import ReorderBuffer, RtpPacket, SenderReport
from camserver.rtsp.rtp import RtpSender, jpeg_payloads
from camserver.rtsp.sdp import control_url, parse_sdp


def pictures(stream: list[RtpPacket], codec: str) -> list[AccessUnit]:
    assembler = PictureAssembler(H264Depacketiser() if codec == "h264" else H265Depacketiser())
    return [p for packet in stream for p in assembler.feed(packet)]


@pytest.mark.parametrize("markers", ["picture", "unit", "never"])
@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_a_film_comes_out_as_it_went_in(codec: str, markers: str) -> None:
    """Whatever a sender thinks a marker is.

    Only the last picture of a sender that marks otherwise stays uncertain.
    """
    film = FILMS[codec]
    out = [
        p
        for p in pictures(packets(film, codec, markers=markers), codec)
        if slices(split_annex_b(p.data))
    ]
    sure = len(film) - (markers != "picture")
    assert [slices(split_annex_b(p.data)) for p in out[:sure]] == [
        slices(nals) for nals in film[:sure]
    ]
    assert [p.key for p in out[:sure]] == [n % 3 == 0 for n in range(sure)]
    assert all(p.whole for p in out[:sure])
    for picture in out[:sure]:
        if picture.key:
            assert split_annex_b(picture.data) == film[0][:-2] + slices(split_annex_b(picture.data))


@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_a_sender_without_a_clock(codec: str) -> None:
    """All timestamps alike: pictures are told apart by the marker and by what opens a picture."""
    out = pictures(packets(FILMS[codec], codec, clock=0), codec)
    whole = {p.data for p in out if p.key and p.whole}
    assert whole
    assert all(
        slices(split_annex_b(data)) in [slices(nals) for nals in FILMS[codec]] for data in whole
    )


@settings(max_examples=400)
@given(
    st.data(),
    st.sampled_from(["h264", "h265"]),
    st.sampled_from(["picture", "unit", "never"]),
    st.sampled_from([3000, 0]),
)
def test_no_picture_with_a_hole_is_whole(
    data: st.DataObject, codec: str, markers: str, clock: int
) -> None:
    """Packets lost, doubled or swapped anywhere, joining anywhere.

    What is called whole equals what was sent.
    """
    stream = packets(FILMS[codec], codec, markers=markers, clock=clock)
    stream = stream[data.draw(st.integers(0, len(stream) - 1)) :]
    for lost in sorted(
        data.draw(st.sets(st.integers(0, len(stream) - 1), max_size=6)), reverse=True
    ):
        del stream[lost]
    for _ in range(data.draw(st.integers(0, 4))):
        if len(stream) > 1:
            at = data.draw(st.integers(0, len(stream) - 2))
            stream[at], stream[at + 1] = stream[at + 1], stream[at]
    for picture in pictures(stream, codec):
        if picture.whole and picture.key:
            assert slices(split_annex_b(picture.data)) in [slices(nals) for nals in FILMS[codec]]


@pytest.mark.parametrize("suffix", [SUFFIX_SEI, FILLER], ids=["suffix SEI", "filler"])
def test_what_stands_between_slices_ends_no_picture(suffix: bytes) -> None:
    """A sender that marks every unit, without a clock.

    A suffix message or filler after a slice is no new picture.
    """
    film = [[*nals[:-1], suffix, nals[-1]] for nals in h265_film(9)]
    for clock in (0, 3000):
        for picture in pictures(packets(film, "h265", markers="unit", clock=clock), "h265"):
            if picture.whole and picture.key:
                assert slices(split_annex_b(picture.data)) in [slices(nals) for nals in film]


def test_parameter_sets_of_megabytes_are_not_kept() -> None:
    """They would be put before every picture that lacks them.

    Gigabytes of copying for a camera that sends little.
    """
    depacketiser = H264Depacketiser((b"\x67" + noise(20, 1), b"\x68" + noise(5, 2)))
    depacketiser.add(b"\x7c\x87" + noise(1400, 3))
    for n in range(2000):
        depacketiser.add(b"\x7c\x07" + noise(1400, 4 + n % 7))
    depacketiser.add(b"\x7c\x47" + noise(1400, 5))
    depacketiser.begin()
    depacketiser.add(b"\x65\x88" + noise(100, 6))
    data, key, complete = depacketiser.finish()
    assert (key, complete) == (True, True)
    assert len(data) < 200


def test_a_marker_counts_only_for_pictures_like_the_one_that_proved_it() -> None:
    """A sender that marks every slice since it was updated.

    Its first marked slice is not taken for the picture.
    """
    film = h264_film(4)
    usual = PictureAssembler(H264Depacketiser())
    for packet in packets(film, "h264"):
        usual.feed(packet)
    assert usual.proof is not None
    assert usual.proof.slices > 1
    known = PictureAssembler(H264Depacketiser(), proof=usual.proof)
    first = [p for p in packets(film, "h264") if p.timestamp == packets(film, "h264")[0].timestamp]
    assert [p.whole for packet in first for p in known.feed(packet)] == [True], (
        "known markers need no next picture"
    )
    since = PictureAssembler(H264Depacketiser(), proof=usual.proof)
    found = [
        p
        for packet in packets(film, "h264", markers="unit")
        for p in since.feed(packet)
        if p.key and p.whole
    ]
    assert found
    assert {p.data.count(b"\0\0\0\1\x65") for p in found} == {usual.proof.slices}
    assert since.proof is None


def test_a_stall_after_a_marked_slice_proves_nothing() -> None:
    """Nothing is given before something else proves the end, however long it takes.

    Time is no argument here.
    """
    stream = packets(FILMS["h265"], "h265", markers="unit")
    first = next(n for n, packet in enumerate(stream) if packet.marker and len(packet.payload) > 50)
    assert [p for p in pictures(stream[: first + 1], "h265") if p.key] == []


@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_a_picture_of_millions_of_units_costs_little_and_is_not_whole(codec: str) -> None:
    kind, tiny = (
        (bytes((24,)), b"\0\1\x65") if codec == "h264" else (bytes((48 << 1, 1)), b"\0\2\x26\1")
    )
    stream = [RtpPacket(96, False, n, 0, 1, kind + tiny * 20_000) for n in range(30)]
    stream.append(RtpPacket(96, False, 30, 3000, 1, b"\x61\x88xx"))
    tracemalloc.start()
    made = pictures(stream, codec)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [p.whole for p in made] == [False]
    assert peak < 4_000_000


@given(
    st.lists(st.binary(max_size=60), max_size=30),
    st.sampled_from([H264Depacketiser, H265Depacketiser, JpegDepacketiser]),
)
def test_payloads_of_garbage_do_no_harm(
    payloads: list[bytes], kind: type[H264Depacketiser | JpegDepacketiser]
) -> None:
    """Anything may come in RTP packets; nothing but pictures comes out."""
    assembler = PictureAssembler(kind())
    for number, payload in enumerate(payloads):
        assembler.feed(RtpPacket(96, number % 3 == 0, number, number // 4, 1, payload))


@given(st.binary(max_size=64))
def test_packets_of_garbage_do_no_harm(data: bytes) -> None:
    packet = RtpPacket.parse(data)
    assert packet is None or len(packet.payload) <= len(data)
    SenderReport.parse(data)
    parse_sdp(data)
    Login(LoginCache("u", "p")).refused([data.decode("latin-1")], sent=False)


@given(st.permutations(range(12)), st.integers(0, 65535))
def test_order_is_made_again(order: list[int], first: int) -> None:
    """Up to the bound, packets leave in the order of their numbers, each once."""
    buffer = ReorderBuffer()
    start = RtpPacket(96, False, (first - 1) % 65536, 0, 1, b"")
    out = list(buffer.feed(start, 0.0))
    for position in [*order, *order]:
        out += buffer.feed(RtpPacket(96, False, (first + position) % 65536, 0, 1, b""), 0.0)
    assert [p.sequence for p in out] == [(first - 1 + i) % 65536 for i in range(13)]


def test_a_hole_is_waited_for_only_so_long() -> None:
    buffer = ReorderBuffer()
    numbers = [
        p.sequence
        for n, now in ((0, 0.0), (2, 0.01), (3, 0.1), (4, 0.3), (1, 0.31), (5, 0.32))
        for p in buffer.feed(RtpPacket(96, False, n, 0, 1, b""), now)
    ]
    assert numbers == [0, 2, 3, 4, 5]


@pytest.mark.parametrize(("mode", "sampling"), [("RGB", 2), ("RGB", 1)])
def test_jpeg_is_a_file_again(mode: str, sampling: int) -> None:
    """RFC 2435 there and back shows the same picture.

    A lost fragment is noticed; a whole file passes as it is.
    """
    file = io.BytesIO()
    Image.effect_noise((320, 240), 60).convert(mode).save(
        file, "JPEG", quality=80, subsampling=sampling
    )
    sent = file.getvalue()
    depacketiser = JpegDepacketiser()
    if sampling == 2:
        payloads = list(jpeg_payloads(sent, limit=500))
        for payload in payloads:
            depacketiser.add(payload)
        data, key, complete = depacketiser.finish()
        assert (key, complete) == (True, True)
        assert Image.open(io.BytesIO(data)).tobytes() == Image.open(io.BytesIO(sent)).tobytes()
        depacketiser.begin()
        for payload in payloads[:2] + payloads[3:]:
            depacketiser.add(payload)
        assert not depacketiser.finish()[2]
        depacketiser.begin()
    depacketiser.add(sent[:1000])
    depacketiser.add(sent[1000:])
    assert depacketiser.finish() == (sent, True, True)


def test_jpeg_tables_by_number() -> None:
    """Q below 100 means the standard tables, scaled (RFC 2435, 4.2)."""
    file = io.BytesIO()
    Image.effect_noise((320, 240), 60).convert("RGB").save(file, "JPEG", quality=75, subsampling=2)
    first, *rest = jpeg_payloads(file.getvalue(), limit=500)
    depacketiser = JpegDepacketiser()
    depacketiser.add(first[:5] + bytes((75,)) + first[6:8] + first[12 + 128 :])
    for payload in rest:
        depacketiser.add(payload)
    data, _, complete = depacketiser.finish()
    assert complete
    assert Image.open(io.BytesIO(data)).tobytes() == Image.open(file).tobytes()


SDP = b"""v=0\r
o=- 1 1 IN IP4 10.0.0.5\r
s=x\r
a=control:*\r
m=audio 0 RTP/AVP 8\r
a=control:trackID=2\r
m=video 0 RTP/AVP 97\r
a=rtpmap:97 H264/90000\r
a=fmtp:97 packetization-mode=1; profile-level-id=42001e; sprop-parameter-sets=Z0IAHqs=,aM48gA==\r
a=control:trackID=1\r
m=application 0 RTP/AVP 107\r
a=rtpmap:107 vnd.onvif.metadata/90000\r
"""


def test_a_description_gives_the_video_track() -> None:
    description = parse_sdp(SDP)
    track = description.video()
    assert track is not None
    assert (track.codec, track.clock_hz, track.control, track.payload_type) == (
        "h264",
        90_000,
        "trackID=1",
        97,
    )
    assert track.parameter_sets() == [SPS, PPS]
    assert [t.kind for t in description.tracks] == ["audio", "video", "application"]
    assert parse_sdp(SDP.replace(b"\r\n", b"\n")) == description
    assert parse_sdp(b"m=video 0 RTP/AVP 26\n").video() is not None
    assert parse_sdp(b"").video() is None


@pytest.mark.parametrize(
    ("control", "url"),
    [
        ("", "rtsp://cam/s"),
        ("*", "rtsp://cam/s"),
        ("trackID=1", "rtsp://cam/s/trackID=1"),
        ("rtsp://cam:554/other", "rtsp://cam:554/other"),
        ("/track1", "rtsp://cam/s/track1"),
    ],
)
def test_where_a_track_is_controlled(control: str, url: str) -> None:
    assert control_url("rtsp://cam/s", control) == url
    assert control_url("rtsp://cam/s/", control) == (
        url if control not in ("", "*") else "rtsp://cam/s/"
    )


def test_what_a_camera_names_cannot_break_our_requests() -> None:
    """A URL or an id of its own goes back to it in a request line and in headers.

    Nothing in it may end either.
    """
    assert control_url("rtsp://cam/s", "track 1\x85\x00") == "rtsp://cam/s/track%201%C2%85%00"
    response = next(
        iter(
            MessageParser().feed(b"RTSP/1.0 200 OK\r\nSession: 7\rTEARDOWN x\r\nA: b\r\n c\r\n\r\n")
        )
    )
    assert isinstance(response, Response)
    sent = Request("PLAY", "rtsp://cam/s", Headers({"Session": response.headers["Session"]}))
    assert sent.encode() == b"PLAY rtsp://cam/s RTSP/1.0\r\nSession: 7 TEARDOWN x\r\n\r\n"
    assert response.headers["A"] == "b c"
    asked = next(iter(MessageParser().feed("OPTIONS rtsp://a\xa0b RTSP/1.0\r\n\r\n".encode())))
    assert isinstance(asked, Request)
    assert asked.uri == "rtsp://a\xa0b"


def test_a_sender_report_tells_the_cameras_clock() -> None:
    sender = RtpSender(96, 1, 1)
    report = SenderReport.parse(sender.sender_report(1000.5, 90_000))
    assert report is not None
    assert abs(report.wall_at(180_000, 90_000) - 1001.5) < 1e-6
    assert abs(report.wall_at(0, 90_000) - 999.5) < 1e-6
