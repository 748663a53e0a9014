"""The login caches of all cameras. The engines share them, so that no nonce count is used twice."""

from __future__ import annotations

from urllib.parse import urlsplit

from cachetools import LRUCache

from camserver.config import Camera
from camserver.config.urls import RTSP_PORTS
from camserver.rtsp.login import LoginCache

MAX_REMEMBERED = 10_000


class Logins:
    """What is known of the login of each address and user, for all its streams."""

    def __init__(self) -> None:
        self._caches: LRUCache[tuple[str, int, str, str], LoginCache] = LRUCache(MAX_REMEMBERED)

    def of(self, camera: Camera, url: str) -> LoginCache:
        """The login cache for `url`. It is created when the address or the user is new."""
        parts = urlsplit(url)
        port = parts.port or RTSP_PORTS[parts.scheme]
        key = parts.hostname or "", port, camera.username, camera.password
        if key not in self._caches:
            self._caches[key] = LoginCache(camera.username, camera.password)
        return self._caches[key]
