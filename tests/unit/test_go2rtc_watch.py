"""What is concluded from what go2rtc's API shows.

The API itself is a table here, time is the loop's.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import camera

from camserver.config.model import Go2rtcTable
from camserver.events import Event, StreamRegistered
from camserver.go2rtc.api import Go2rtcApi, Go2rtcDown, StreamView
from camserver.go2rtc.registry import StreamRegistry
from camserver.go2rtc.watcher import DIAL_S, Go2rtc
from camserver.leases import Budget, Holder, RtspManager
from camserver.model import SessionEnd

IDLE, LIVE = StreamView(), StreamView(True, 1)


class Api:
    """`/api/streams` as it is at the moment."""

    def __init__(self, **streams: StreamView) -> None:
        self.shown = dict(streams)
        self.removed: list[str] = []

    async def streams(self) -> dict[str, StreamView]:
        return dict(self.shown)

    async def register(self, name: str, source: str) -> None:
        scheme, _, rest = source.partition("://")
        self.shown[name] = StreamView(sources=(f"{scheme}://{rest.rpartition('@')[2]}",))

    async def remove(self, name: str) -> None:
        self.removed.append(name)
        self.shown.pop(name)

    async def close(self) -> None:
        """Nothing is open."""


async def beside(
    api: Api, events: list[Event] | None = None, path: Path | None = None
) -> tuple[Go2rtc, RtspManager]:
    manager = RtspManager()
    manager.configure({"gate": Budget(1, 0.3, 4.0)}, {"gate": "gate"})
    emit = ([] if events is None else events).append
    registry = StreamRegistry(emit, path)
    registry.load()
    go2rtc = Go2rtc(manager.observe, emit, registry)
    await go2rtc.configure(Go2rtcTable(api="http://x", rtsp="rtsp://x", register=True), [gate()])
    await go2rtc._api.close()
    go2rtc._api = api
    return go2rtc, manager


def gate() -> Any:
    return camera("gate", go2rtc="gate", username="viewer", password="s3cret")


@pytest.mark.parametrize(
    ("shown", "was_open", "end", "after_s"),
    [
        ([IDLE], True, SessionEnd.CLEAN, 0.0),
        ([LIVE, IDLE], True, SessionEnd.CLEAN, 0.1),
        ([IDLE], False, SessionEnd.UNCLEAN, DIAL_S),  # it may be on its way all the while
        ([IDLE, IDLE, LIVE, IDLE], False, SessionEnd.CLEAN, 0.3),
        ([IDLE, LIVE], False, SessionEnd.NONE, DIAL_S),  # somebody watches: counted as such
    ],
)
async def test_a_session_that_go2rtc_opened_is_over_when_that_is_proven(
    shown: list[StreamView], was_open: bool, end: SessionEnd, after_s: float
) -> None:
    api = Api(gate=shown[0])
    go2rtc, manager = await beside(api)
    lease = await manager.acquire("gate", "gate", Holder("poller"))
    go2rtc.opening(gate())
    begun = asyncio.get_running_loop().time()
    for step, view in enumerate(shown):
        asyncio.get_running_loop().call_at(
            begun + 0.1 * step - 0.01, api.shown.__setitem__, "gate", view
        )
    assert await go2rtc.settled(gate(), was_open=was_open) is end
    assert asyncio.get_running_loop().time() - begun == pytest.approx(after_s, abs=0.11)
    lease.release()
    await go2rtc.close()


async def test_a_stream_that_an_operator_replaced_is_never_touched() -> None:
    """`exec:camserver lease …` in the place of what we registered.

    Not overwritten, and not removed afterwards.
    """
    own = StreamView(
        sources=("exec:camserver lease gate -- ffmpeg -i rtsp://127.0.0.1/gate -f rtsp {output}",)
    )
    api = Api()
    go2rtc, _ = await beside(api)
    for _ in range(2):
        await go2rtc.look()
        await go2rtc._register(api)
    assert api.shown["gate"].sources == ("rtsp://127.0.0.1/gate",)
    api.shown["gate"] = own
    for wanted in (True, False):
        if not wanted:  # register was taken away, or the camera
            go2rtc._cameras = {}
        for _ in range(2):
            await go2rtc.look()
            await go2rtc._register(api)
        assert (api.shown["gate"], api.removed) == (own, [])


async def test_only_what_we_made_is_taken_away(tmp_path: Any) -> None:
    """Over a restart, too; a stream that somebody made, or added a source to, stays."""
    path = tmp_path / "streams"
    for hand_made, again, removed in (
        (False, False, ["gate"]),
        (False, True, []),
        (True, False, []),
    ):
        api, events = Api(), list[Event]()
        url = gate().url
        if hand_made:
            api.shown["gate"] = StreamView(sources=(url, "ffmpeg:gate#audio=opus"))
        go2rtc, _ = await beside(api, events, path)
        await go2rtc.look()
        await go2rtc._register(api)
        assert any(isinstance(event, StreamRegistered) for event in events) is not hand_made
        await go2rtc.close()
        if again:
            api.shown["gate"] = StreamView(sources=(url, "ffmpeg:gate#audio=opus"))
        go2rtc, _ = await beside(api, path=path)  # the next process
        go2rtc._cameras = {}
        await go2rtc.look()
        await go2rtc._register(api)
        assert api.removed == removed
        path.unlink(missing_ok=True)


async def test_a_new_password_is_written_to_go2rtc_too() -> None:
    """The URL without the login stays the same: go2rtc would dial with the old one for ever."""
    api, written = Api(), list[str]()
    register = api.register

    async def noted(name: str, source: str) -> None:
        written.append(source)
        await register(name, source)

    api.register = noted  # type: ignore[method-assign]
    go2rtc, _ = await beside(api)
    for password in ("s3cret", "s3cret", "n3w"):
        go2rtc._cameras = {"gate": replace(gate(), password=password)}
        await go2rtc.look()
        await go2rtc._register(api)
    assert [source.partition("@")[0] for source in written] == [
        "rtsp://viewer:s3cret",
        "rtsp://viewer:n3w",
    ]


async def test_a_go2rtc_that_is_forgotten_while_it_is_asked_ends_nothing() -> None:
    """A reload to another one, in the middle of removing a stream."""
    registry = StreamRegistry([].append)
    api = Api()
    await registry.update(api, {}, [gate()])

    async def slow(name: str) -> None:
        registry.forget_all()
        api.removed.append(name)

    api.remove = slow  # type: ignore[method-assign]
    await registry.update(api, dict(api.shown), [])
    assert api.removed == ["gate"]


class Closing(Api):
    """An API that takes its time to close, and must not be asked meanwhile."""

    is_closing = False

    async def streams(self) -> dict[str, StreamView]:
        assert not self.is_closing
        return await super().streams()

    async def close(self) -> None:
        self.is_closing = True
        await asyncio.sleep(1)


async def test_an_api_that_a_reload_closes_is_not_asked_any_more() -> None:
    """Otherwise its closed connection would end the daemon."""
    go2rtc, _ = await beside(Closing(cam=LIVE))
    table = Go2rtcTable(api="http://y", rtsp="rtsp://y", register=True)
    reload = asyncio.create_task(go2rtc.configure(table, [gate()]))
    while not reload.done():
        await go2rtc.look()
        await asyncio.sleep(0.1)
    await reload
    await go2rtc.close()


async def test_a_call_after_the_end_says_that_go2rtc_is_down() -> None:
    api = Go2rtcApi("http://127.0.0.1:1", "rtsp://127.0.0.1:1", None, None)
    await api.close()
    with pytest.raises(Go2rtcDown):
        await api.streams()
