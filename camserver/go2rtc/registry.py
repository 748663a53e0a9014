"""The streams that camserver creates in go2rtc, and the file that keeps them over a restart.

Streams of the operator are never changed. camserver changes or removes only a stream that it
created, and only while the stream still has exactly the source that camserver wrote.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from camserver.config import Camera
from camserver.config.urls import with_credentials
from camserver.events import Event, StreamForgotten, StreamRegistered, StreamRemoved
from camserver.go2rtc.api import Go2rtcApi, StreamView, without_userinfo
from camserver.host.files import read_regular


class StreamRegistry:
    """Registers missing cameras in go2rtc, and removes our streams of removed cameras."""

    def __init__(self, emit: Callable[[Event], None], path: Path | None = None) -> None:
        """Set up an empty registry. With `path` None nothing is kept over a restart."""
        self._emit = emit
        self._path = path
        # Stream name -> the URL that camserver wrote, without user info
        self._registered: dict[str, str] = {}
        # The same with the login, which is kept in memory only: a new password is written, too
        self._written: dict[str, str] = {}

    def load(self) -> None:
        """Read the streams that an earlier process registered: they are ours, too."""
        if self._path is None:
            return
        with contextlib.suppress(OSError, ValueError, AttributeError):
            streams = json.loads(read_regular(self._path))
            self._registered |= {str(name): str(url) for name, url in streams.items()}

    async def update(
        self, api: Go2rtcApi, streams: Mapping[str, StreamView], cameras: Iterable[Camera]
    ) -> None:
        """Create, change and remove streams so that go2rtc has those of `cameras`.

        `streams` are those that go2rtc has now. Raises Go2rtcDown.
        """
        wanted = {c.go2rtc: (c, c.url) for c in cameras if c.go2rtc and c.url}
        for name in self._registered.keys() - wanted.keys():
            if self._is_ours(name, streams):
                await api.remove(name)
                self._forget(name, StreamRemoved(stream=name))
            else:
                self._forget(name, StreamForgotten(stream=name))
        for name, (camera, url) in wanted.items():
            known = streams.get(name)
            full_url = with_credentials(url, camera.username, camera.password)
            is_old = full_url != self._written.get(name)
            if known is None or (self._is_ours(name, streams) and is_old and not known.live):
                await api.register(name, full_url)
                self._written[name] = full_url
                source = self._registered[name] = without_userinfo(url)
                self._changed(StreamRegistered(stream=name, source=source))

    def forget_all(self) -> None:
        """Forget all streams because another go2rtc is used: it may have streams of these names."""
        for name in list(self._registered):
            self._forget(name, StreamForgotten(stream=name))

    def _is_ours(self, name: str, streams: Mapping[str, StreamView]) -> bool:
        known = streams.get(name)
        return (
            name in self._registered
            and known is not None
            and known.sources == (self._registered[name],)
        )

    def _forget(self, name: str, event: Event) -> None:
        self._written.pop(name, None)
        if self._registered.pop(name, None) is not None:  # a reload may have forgotten it meanwhile
            self._changed(event)

    def _changed(self, event: Event) -> None:
        self._save()
        self._emit(event)

    def _save(self) -> None:
        """Write the file. If the directory can't be written, the streams are not remembered."""
        if self._path is None:
            return
        with contextlib.suppress(OSError):
            temporary = self._path.with_suffix(".tmp-streams")
            temporary.write_text(json.dumps(self._registered))
            temporary.replace(self._path)
