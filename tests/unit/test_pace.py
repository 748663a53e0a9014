"""A camera that floods: what it may cost, in turns of the event loop and in shares of a core."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from camserver.capture.http_connection import Address, HttpConnection
from camserver.capture.paced import DEAR_S, LARGEST_SLICE_BYTES, PAUSE_S, PacedProtocol
from camserver.pace import BURST_S, BYTE_S, SHARE, TURN_S, Pace
from camserver.rtsp.aio.connection import MAX_UNASKED, RtspConnection
from camserver.rtsp.bitstream import split_annex_b
from camserver.rtsp.messages import (
    MAX_FALSE_STARTS,
    MAX_HEADER_LINES,
    MAX_STRAY_BYTES,
    Interleaved,
    MessageParser,
    RtspProtocolError,
)
from camserver.rtsp.nal import MAX_AGGREGATED, H264Depacketiser


class Work:
    """A clock that moves only when work is done: `each_s` for each look at it."""

    def __init__(self, each_s: float = 0.0) -> None:
        self.now = 0.0
        self.each_s = each_s

    def __call__(self) -> float:
        self.now += self.each_s
        return self.now


class Transport(asyncio.Transport):
    paused = aborted = False

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.aborted

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Whatever is answered."""


def connected(clock: Callable[[], float] = time.perf_counter) -> tuple[RtspConnection, Transport]:
    connection, transport = RtspConnection(), Transport()
    connection._pace = Pace(clock, clock)
    connection.connection_made(transport)
    return connection, transport


def test_a_connection_gets_its_burst_and_then_its_share() -> None:
    clock = Work()
    pace = Pace(clock, clock)
    used = 0.0
    while clock.now < 100:
        pace.begin()
        clock.now += TURN_S
        used += TURN_S
        clock.now += pace.end()
    assert used == pytest.approx(BURST_S + SHARE * 100, rel=0.02)


def test_bytes_cost_beside_their_parsing() -> None:
    clock = Work()
    pace = Pace(clock, clock)
    received = 0
    while clock.now < 100:
        pace.received(256 * 1024)
        received += 256 * 1024
        pace.begin()
        clock.now += pace.end()
    assert received * BYTE_S == pytest.approx(BURST_S + SHARE * 100, rel=0.02)
    assert received / 100 == pytest.approx(32e6, rel=0.1)


async def test_a_flood_of_tiny_messages_leaves_turns_to_others() -> None:
    """It is processed in turns and in order, none is lost, and nothing is read meanwhile."""
    connection, transport = connected(Work(each_s=TURN_S / 100))
    seen: list[bytes] = []
    connection.on_packet = lambda _, payload: seen.append(payload)
    flood = [b"%d" % n for n in range(1000)]
    connection.data_received(b"".join(Interleaved(0, payload).encode() for payload in flood))
    turns = 0
    while transport.paused:
        assert len(seen) <= 100 * (turns + 1)
        turns += 1
        connection.data_received(b"")  # TLS gives what it has, although reading is paused
        await asyncio.sleep(0)
    assert seen == flood
    assert turns >= 10
    connection.connection_lost(None)


@pytest.mark.parametrize("how", ["eof", "lost"])
async def test_what_came_before_the_end_counts(how: str) -> None:
    """All of it, in turns; only then the connection has ended. Closed it is at once."""
    connection, _ = connected(Work(each_s=TURN_S / 100))
    seen: list[bytes] = []
    connection.on_packet = lambda _, payload: seen.append(payload)
    connection.data_received(Interleaved(0, b"x").encode() * 1000)
    if how == "eof":
        connection.eof_received()
    connection.connection_lost(None)
    assert connection.closed.done()
    assert connection.end is None
    while connection.end is None:
        await asyncio.sleep(0)
    assert len(seen) == 1000
    assert connection.end.by_camera == (how == "eof")


async def test_what_came_before_our_own_end_does_not_count() -> None:
    connection, _ = connected(Work(each_s=TURN_S / 100))
    seen: list[bytes] = []
    connection.on_packet = lambda _, payload: seen.append(payload)
    connection.data_received(Interleaved(0, b"x").encode() * 1000)
    connection.abort()
    connection.connection_lost(None)
    assert connection.end is not None
    await asyncio.sleep(0.1)
    assert len(seen) <= 101


async def test_a_bug_in_a_later_turn_ends_the_connection() -> None:
    connection, transport = connected(Work(each_s=TURN_S / 100))
    seen: list[bytes] = []

    def breaks(_: int, payload: bytes) -> None:
        seen.append(payload)
        if len(seen) == 150:
            raise RuntimeError("a bug")

    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    connection.on_packet = breaks
    connection.data_received(Interleaved(0, b"x").encode() * 1000)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert "internal fault" in str(connection.end)
    assert transport.aborted
    assert len(faults) == 1


def test_a_process_that_waits_for_the_processor_blames_nobody() -> None:
    """Wall time ends a turn. Only CPU time is charged."""
    wall, cpu = Work(), Work()
    pace = Pace(wall, cpu)
    for _ in range(100):
        pace.begin()
        wall.now += 1.5
        assert pace.turn_is_over
        assert pace.end() == 0.0


@pytest.mark.parametrize(
    "flood",
    [b"RTSP/1.0 200 OK\r\n\r\n", b"RTSP/1.0 100 Continue\r\n\r\n", b"OPTIONS * RTSP/1.0\r\n\r\n"],
    ids=["answers", "1xx", "requests"],
)
async def test_messages_that_nobody_asked_for_end_the_connection(flood: bytes) -> None:
    connection, transport = connected(Work())
    connection.data_received(flood * MAX_UNASKED)
    assert connection.end is None
    connection.data_received(flood)
    assert "nobody asked for" in str(connection.end)
    assert transport.aborted


async def test_100_continue_is_not_the_answer() -> None:
    connection, _ = connected(Work())
    waiting = asyncio.create_task(connection.request("DESCRIBE", "rtsp://x/", {}))
    await asyncio.sleep(0)
    connection.data_received(b"RTSP/1.0 100 Continue\r\nCSeq: 1\r\n\r\n")
    connection.data_received(b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n")
    assert (await waiting).status == 200
    connection.connection_lost(None)


@pytest.mark.parametrize(
    ("flood", "said"),
    [
        (b"RTSP/1.0 200 OK\r\n" + b"a:b\r\n" * (MAX_HEADER_LINES + 1) + b"\r\n", "lines"),
        (b"\r\n" * MAX_STRAY_BYTES, "blank bytes"),
        (b"RTSP/1.0\r\n" * (MAX_FALSE_STARTS + 1), "beginnings of no message"),
        (b"\x01" * 2 * MAX_STRAY_BYTES, "no RTSP"),
    ],
)
def test_limits_of_the_parser(flood: bytes, said: str) -> None:
    with pytest.raises(RtspProtocolError, match=said):
        list(MessageParser().feed(flood))


def stap_a(units: int) -> bytes:
    return b"\x78" + b"\x00\x02\x41\x80" * units


def test_an_aggregate_has_few_units() -> None:
    """15,000 units in one packet: the picture is incomplete, and the rest costs nothing."""
    depacketiser = H264Depacketiser()
    depacketiser.add(stap_a(15_000))
    assert len(depacketiser._units) == MAX_AGGREGATED
    assert not depacketiser.finish()[2]
    sound = H264Depacketiser([b"\x67\x42\x00\x1e", b"\x68\xce"])
    sound.add(b"\x78" + b"\x00\x03\x65\x88\x80" * 20)
    assert sound.finish()[1:] == (True, True)


def test_zeros_cost_once() -> None:
    """A start code and then a megabyte of zeros: split in one pass."""
    data = b"\0\0\1" + b"\x65\x88" + b"\0" * 1_000_000 + b"\x80"
    assert split_annex_b(data) == [data[3:]]
    assert split_annex_b(b"\0\0\0\1\x65\0\0\0\0\1\x41") == [b"\x65", b"\x41"]


class Inner(asyncio.Protocol):
    """A parser that needs `each_s` for every call."""

    def __init__(self, clock: Work, each_s: float) -> None:
        self.clock, self.each_s = clock, each_s
        self.data: list[bytes] = []
        self.over = 0
        self.transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.clock.now += self.each_s
        self.data.append(data)

    def connection_lost(self, _: Exception | None) -> None:
        self.over += 1


def paced(each_s: float) -> tuple[PacedProtocol, Inner, Transport]:
    clock = Work()
    inner, transport = Inner(clock, each_s), Transport()
    protocol = PacedProtocol(inner, clock)
    protocol._pace = Pace(clock, clock)
    protocol.connection_made(transport)
    return protocol, inner, transport


async def test_a_library_gets_its_bytes_in_turns() -> None:
    """In order, whole, and nothing is read meanwhile. Both may stop the reading."""
    protocol, inner, transport = paced(TURN_S / 10)
    data = bytes(range(256)) * 500
    protocol.data_received(data)
    assert transport.paused
    assert len(inner.data) == 10
    assert isinstance(inner.transport, object)
    inner.transport.pause_reading()  # type: ignore[union-attr]
    while len(b"".join(inner.data)) < len(data):
        await asyncio.sleep(PAUSE_S)
    assert b"".join(inner.data) == data
    assert transport.paused
    inner.transport.resume_reading()  # type: ignore[union-attr]
    assert not transport.paused
    protocol.data_received(b"rest" * 40_000)
    protocol.eof_received()
    protocol.connection_lost(None)
    assert inner.over == 0, "what has come comes first, and in turns, too"
    while not inner.over:
        await asyncio.sleep(PAUSE_S)
    assert b"".join(inner.data) == data + b"rest" * 40_000
    assert inner.over == 1


async def test_a_connection_that_costs_too_much_is_closed() -> None:
    protocol, inner, transport = paced(TURN_S)
    while not transport.aborted:
        protocol.data_received(b"x" * 2048)
        await asyncio.sleep(PAUSE_S)
    assert inner.clock.now == pytest.approx(BURST_S / (1 - SHARE), rel=0.05)


async def test_a_slice_is_as_large_as_it_is_cheap() -> None:
    protocol, inner, _ = paced(0.0)
    protocol.data_received(bytes(1_000_000))
    assert {len(data) for data in inner.data[3:-1]} == {LARGEST_SLICE_BYTES}
    inner.each_s = DEAR_S * 1.1
    inner.data.clear()
    protocol.data_received(bytes(100_000))
    while len(inner.data) < 8:
        await asyncio.sleep(PAUSE_S)
    sizes = [len(data) for data in inner.data]
    assert sizes[:4] == [LARGEST_SLICE_BYTES, LARGEST_SLICE_BYTES // 4, 256, 64]
    assert set(sizes[4:]) == {64}


FLOODS = {
    "chunks": (b"image/jpeg", b"1\r\nx\r\n"),
    "chunks of text": (b"text/html", b"1\r\nx\r\n"),
    "chunks of a part's head": (b"multipart/x-mixed-replace; boundary=x", b"1\r\n-\r\n"),
    "chunks of blanks": (b"image/jpeg", b"1\r\n \r\n"),
    "chunks of markers": (b"image/jpeg", b"4\r\n\xff\xd8\xff\xd0\r\n"),
    "large chunks of markers": (b"image/jpeg", b"1000\r\n" + b"\xff\xd8" * 2048 + b"\r\n"),
}


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("flood", FLOODS)
async def test_a_flood_of_a_snapshot_url_is_read_in_short_turns(flood: str, ends: bool) -> None:
    """Each turn gives the real parser few bytes, also when the connection ends meanwhile.

    What a byte costs is a matter for the benchmark; that the cost is linear is one for this test.
    """
    content_type, chunk = FLOODS[flood]
    connection, transport = HttpConnection(), Transport()
    protocol = PacedProtocol(connection)
    protocol.connection_made(transport)
    given: list[int] = []
    real = connection.data_received

    def note(data: bytes) -> None:
        given.append(len(data))
        real(data)

    connection.data_received = note  # type: ignore[method-assign]
    asking = asyncio.create_task(connection.get(Address.of("http://127.0.0.1/"), {}))
    await asyncio.sleep(PAUSE_S)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n"
    protocol.data_received(head % content_type + chunk * (256 * 1024 // len(chunk)))
    if ends:
        protocol.connection_lost(None)
    while protocol._waiting:
        await asyncio.sleep(PAUSE_S)
    assert max(given) <= LARGEST_SLICE_BYTES
    asking.cancel()
    await asyncio.wait({asking})
    if asking.done() and not asking.cancelled():
        asking.exception()
