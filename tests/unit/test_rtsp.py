"""The RTSP/RTP core: whatever comes in, whole messages or our own error come out.

Payloads survive their fragments.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from camserver.rtsp import auth, messages
from camserver.rtsp.bitstream import split_annex_b
from camserver.rtsp.messages import (
    Headers,
    Interleaved,
    MessageParser,
    Request,
    Response,
    RtspProtocolError,
)
from camserver.rtsp.rtp import (
    NTP_EPOCH_S,
    RtpSender,
    h264_payloads,
    h265_payloads,
    jpeg_payloads,
)

TOKEN = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=12).map(lambda t: f"X{t}")
VALUE = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=30)
HEADERS = st.dictionaries(TOKEN, VALUE, max_size=4)


@pytest.fixture
def anyio_backend() -> str:
    """Real sockets want real time."""
    return "asyncio"


def headers(fields: dict[str, str]) -> Headers:
    made = Headers()
    for name, value in fields.items():
        made[name] = value
    return made


MESSAGES = st.one_of(
    st.builds(
        lambda h, b: Request("DESCRIBE", "rtsp://cam/stream1", headers(h), b),
        HEADERS,
        st.binary(max_size=50),
    ),
    st.builds(
        lambda s, h, b: Response(s, headers(h), b),
        st.integers(100, 599),
        HEADERS,
        st.binary(max_size=50),
    ),
    st.builds(Interleaved, st.integers(0, 255), st.binary(max_size=200)),
)


def parse(data: bytes, cuts: list[int] | None = None) -> list[Request | Response | Interleaved]:
    parser = MessageParser()
    places = [0, *sorted(c % (len(data) + 1) for c in cuts or []), len(data)]
    return [m for a, b in itertools.pairwise(places) for m in parser.feed(data[a:b])]


@given(st.lists(MESSAGES, max_size=5), st.lists(st.integers(0, 10_000), max_size=8))
def test_messages_survive_any_cutting_of_the_stream(
    messages: list[Request | Response | Interleaved], cuts: list[int]
) -> None:
    assert parse(b"".join(m.encode() for m in messages), cuts) == messages


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=4))
def test_garbage_gives_messages_or_our_error(data: bytes, cuts: list[int]) -> None:
    with contextlib.suppress(RtspProtocolError):
        parse(data, cuts)


def test_lenient_where_cameras_are() -> None:
    """Bare line feeds, folded lines, odd case, repeated fields, blank lines between messages."""
    first, second = parse(
        b"\r\n\nRTSP/1.0 200 OK\ncseq: 3\nTransport: RTP/AVP;\n unicast\nwww-authenticate: A\n"
        b"WWW-Authenticate: B\n\nRTSP/1.0 404 Not Found\r\nCSeq: 4\r\n\r\n"
    )
    assert isinstance(first, Response)
    assert isinstance(second, Response)
    assert (first.headers["CSeq"], first.headers["transport"]) == ("3", "RTP/AVP; unicast")
    assert first.headers["WWW-AUTHENTICATE"] == "A, B"
    assert second.status == 404


@pytest.mark.parametrize(
    "data",
    [
        b"RTSP/1.0 200 OK\r\nContent-Length: 1000000\r\n\r\n",
        b"RTSP/1.0 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"X" * 20_000,
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"\1" * 20_000,
        b"RTSP/1.0 200 OK\r\nX: " + b"y" * 20_000,
    ],
)
def test_limits_are_kept(data: bytes) -> None:
    with pytest.raises(RtspProtocolError):
        parse(data)


OK_3 = b"RTSP/1.0 200 OK\r\nCSeq: 3\r\n\r\n"
FRAME = b"$\0\0\x10\x80\x60" + bytes(14)


@pytest.mark.parametrize(
    "stray",
    [
        b"\0\0\0\0",
        b"1\r\n",
        b"ck1\r\n",
        b"a=control:track1\r\nm=x\r\n",
        b"\0",
        b"$",
        b"$\xff\0\1x",
        b"RTSP",
        b"RTSP/1.0 xyz\r\n",
        b"\x80\x60" * 100,
    ],
)
def test_stray_bytes_are_skipped_and_messages_go_on(stray: bytes) -> None:
    """Between frames and before answers, whatever a lying Content-Length left there."""
    assert [type(m) for m in parse(FRAME + stray + FRAME + FRAME)][-2:] == [
        Interleaved,
        Interleaved,
    ]
    messages_ = parse(OK_3 + stray + OK_3)
    assert [m.headers["CSeq"] for m in messages_ if isinstance(m, Response)][-1:] == ["3"]


def test_a_header_line_without_a_colon_says_nothing() -> None:
    (message,) = parse(b"RTSP/1.0 200 OK\r\nno colon\r\nCSeq: 3\r\n: x\r\n\r\n")
    assert isinstance(message, Response)
    assert dict(message.headers) == {"Cseq": "3"}


def test_an_http_server_is_known_at_its_first_line() -> None:
    with pytest.raises(messages.HttpAnswerError):
        parse(b"HTTP/1.1 400 Bad Request\r\n")


def test_digest_as_in_rfc_7616() -> None:
    """Section 3.9.1, both algorithms; and RFC 2069's form without qop."""
    fields = {
        "realm": "http-auth@example.org",
        "nonce": "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
        "nc": "00000001",
        "cnonce": "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
        "qop": "auth",
    }

    def response(**more: str) -> str:
        return auth.digest("Mufasa", "Circle of Life", "GET", "/dir/index.html", fields | more)

    assert response(algorithm="MD5") == "8ca523f5e9506fed4657c9700eebdbec"
    assert (
        response(algorithm="SHA-256")
        == "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"
    )
    old = {"realm": "testrealm@host.com", "nonce": "dcd98b7102dd2f0e8b11d0f600bfb0c093"}
    assert (
        auth.digest("Mufasa", "CircleOfLife", "GET", "/dir/index.html", old)
        == "1949323746fe6a43ef61f9606e7febea"
    )


@given(st.text(max_size=20), st.text(max_size=20))
def test_a_server_accepts_the_right_password_only(password: str, other: str) -> None:
    challenge = {"realm": "r", "nonce": "n"}
    fields = challenge | {"uri": "rtsp://cam/", "username": "viewer"}
    response = auth.digest("viewer", password, "PLAY", "rtsp://cam/", fields)
    header = (
        f'Digest username="viewer", realm="r", nonce="n", uri="rtsp://cam/", response="{response}"'
    )
    assert auth.accepts(header, "viewer", password, "PLAY", challenge)
    assert auth.accepts(header, "viewer", other, "PLAY", challenge) == (password == other)
    assert auth.accepts(auth.basic("viewer", password), "viewer", other, "PLAY", challenge) == (
        password == other
    )
    assert not auth.accepts(header, "viewer", password, "PLAY", {"realm": "r", "nonce": "newer"})


NALS = st.lists(st.binary(min_size=3, max_size=400), min_size=1, max_size=4)


@given(NALS)
def test_h264_fragments_make_the_nal_unit_again(nals: list[bytes]) -> None:
    """FU-A: start and end bits once each, no payload over the limit (RFC 6184, 5.8)."""
    nals = [bytes((0x65,)) + nal for nal in nals]
    again: list[bytes] = []
    for payload in h264_payloads(nals, limit=100):
        assert len(payload) <= 100
        if payload[0] & 31 != 28:
            again.append(payload)
        elif payload[1] & 0x80:
            again.append(bytes((payload[0] & 0xE0 | payload[1] & 31,)) + payload[2:])
        else:
            again[-1] += payload[2:]
    assert again == nals


@given(NALS)
def test_h265_fragments_make_the_nal_unit_again(nals: list[bytes]) -> None:
    """FU: the two-byte header comes back (RFC 7798, 4.4.3)."""
    nals = [bytes((19 << 1, 1)) + nal for nal in nals]
    again: list[bytes] = []
    for payload in h265_payloads(nals, limit=100):
        assert len(payload) <= 100
        if payload[0] >> 1 & 63 != 49:
            again.append(payload)
        elif payload[2] & 0x80:
            again.append(
                bytes(((payload[0] & 0x81) | (payload[2] & 63) << 1, payload[1])) + payload[3:]
            )
        else:
            again[-1] += payload[3:]
    assert again == nals


def test_jpeg_payloads_carry_the_whole_scan() -> None:
    """RFC 2435: offsets join up, the first packet carries both tables.

    What it cannot carry is refused.
    """
    file = io.BytesIO()
    Image.effect_noise((640, 360), 80).convert("RGB").save(file, "JPEG", quality=80, subsampling=2)
    payloads = list(jpeg_payloads(file.getvalue()))
    scan = b""
    for number, payload in enumerate(payloads):
        offset, kind, q, width, height = (int.from_bytes(payload[1:4], "big"), *payload[4:8])
        assert (offset, kind, q, width, height) == (len(scan), 1, 255, 80, 45)
        skip = 8 + (4 + struct.unpack(">H", payload[10:12])[0] if number == 0 else 0)
        scan += payload[skip:]
    assert file.getvalue().endswith(scan + b"\xff\xd9")
    assert struct.unpack(">H", payloads[0][10:12])[0] == 128
    with pytest.raises(ValueError, match="no baseline"):
        list(jpeg_payloads(b"\xff\xd8\xff\xd9"))


def test_a_sender_numbers_and_reports() -> None:
    sender = RtpSender(96, 7, 65535)
    first, second = sender.packet(b"abc", 90, marker=False), sender.packet(b"d", 90, marker=True)
    assert struct.unpack(">BBHII", first[:12]) == (0x80, 96, 65535, 90, 7)
    assert struct.unpack(">BBHII", second[:12]) == (0x80, 96 | 0x80, 0, 90, 7)
    report = struct.unpack(">BBHIIIIII", sender.sender_report(1.5, 91))
    assert report == (0x80, 200, 6, 7, NTP_EPOCH_S + 1, 2**31, 91, 2, 4)


@given(
    st.lists(
        st.binary(min_size=1, max_size=20).filter(
            lambda n: b"\0\0" not in n and not n.startswith(b"\0") and not n.endswith(b"\0")
        ),
        min_size=1,
        max_size=4,
    )
)
def test_annex_b_splits_at_start_codes(nals: list[bytes]) -> None:
    assert split_annex_b(b"".join(b"\0\0\0\1" + nal for nal in nals)) == nals


def test_a_head_is_parsed_once_however_slowly_its_body_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parsed: list[bytes] = []
    parse = messages._parse_head
    monkeypatch.setattr(messages, "_parse_head", lambda head: parsed.append(head) or parse(head))
    parser, body = MessageParser(), b"v=0\r\n" * 100
    message = Response(200, Headers(Cseq="1"), body).encode()
    found = [m for data in (message + message) for m in parser.feed(bytes((data,)))]
    assert [m.body for m in found if isinstance(m, Response)] == [body, body]
    assert len(parsed) == 2
