"""The client for asyncio."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from camserver.client.exchange import (
    ANSWER_S,
    MAX_LEASE_WAIT_S,
    MAX_WORK_S,
    DaemonUnavailableError,
    Picture,
    exchange_async,
    opened,
    silent,
    went_away,
)
from camserver.client.latest import Age, JsonLines
from camserver.client.lease_exchange import (
    Granted,
    LeaseExchange,
    LeaseNotice,
    LeaseRequest,
    LeaseState,
    Right,
    route_of,
)
from camserver.client.sync import DEFAULT_SOCKET, GIVE_BACK_S


class AsyncHeldLease:
    """A lease of the asyncio client, held until the end of its `async with` block."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        exchange: LeaseExchange,
        granted: Granted,
    ) -> None:
        self.granted = granted
        self.clean = True
        """Set it to False when a session had an unclean end.

        Then the device gets the long cool-down.
        """
        self._reader = reader
        self._writer = writer
        self._exchange = exchange
        self._notice: asyncio.Future[LeaseNotice] = asyncio.get_running_loop().create_future()
        self._listening = asyncio.create_task(self._listen(), name=f"lease of {granted.camera}")

    @property
    def right(self) -> Right | None:
        """Until when the session may be open; None on a host that is in no fleet."""
        return self._exchange.right

    async def withdrawn(self) -> LeaseNotice:
        """Wait until the session must be ended: the lease is withdrawn, or the daemon is gone."""
        return await asyncio.shield(self._notice)

    async def give_back(self) -> None:
        """Say how the session ended, and wait until the lease is given back.

        The wait takes at most GIVE_BACK_S seconds.
        """
        self._writer.write(self._exchange.end(clean=self.clean))
        await asyncio.wait({self._listening}, timeout=GIVE_BACK_S)

    def close(self) -> None:
        """Give the lease back without saying how the session ended. Idempotent."""
        self._listening.cancel()
        self._writer.close()

    async def _listen(self) -> None:
        """Read notices until the daemon closes the connection."""
        try:
            while True:
                notice = self._exchange.next_notice()
                if notice is None:
                    data = await self._reader.read(4096)
                    self._exchange.feed(data)
                elif not self._notice.done():
                    self._notice.set_result(notice)
                if notice is not None and notice.state is LeaseState.GONE:
                    return
        except (OSError, ValueError, LookupError):  # it is over, or says what makes no sense
            pass
        finally:
            if not self._notice.done():
                self._notice.set_result(LeaseNotice(LeaseState.GONE))


class LeaseClient:
    """The client for asyncio. Calls may run concurrently.

    `path` is the daemon's socket; the default is $CAMSERVER_SOCKET, then DEFAULT_SOCKET.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or Path(os.environ.get("CAMSERVER_SOCKET") or DEFAULT_SOCKET)

    async def latest(
        self,
        camera: str,
        *,
        max_age: float | str | None = None,
        wait: float | str | None = None,
        stale_ok: bool = False,
    ) -> Picture:
        """Return the newest published picture; with `max_age`, one that is no older than that.

        If there is none, one is taken, and the call waits for it: at most `wait`, by default as
        long as one poll may take. With `stale_ok` it then returns the old one. Times are in
        seconds, or texts such as "5s".

        Raises DaemonUnavailableError, ApiRefusal (404 when there is no picture yet, 503 when there
        is none that is young enough; `data` says why).
        """
        age = Age(max_age, wait, stale_ok)
        route = age.route(f"{route_of(camera)}/latest.jpg")
        return (await exchange_async(self._path, "GET", route, age.limit_s)).picture()

    async def latest_of(
        self,
        cameras: str = "*",
        *,
        max_age: float | str | None = None,
        wait: float | str | None = None,
        stale_ok: bool = False,
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield the facts of the newest picture of each camera, as soon as they are known.

        `cameras` are patterns of ids such as "gate*,door". The other arguments are as for `latest`.
        The facts have the keys of latest.json, `age_s` and `file`; or `error`, when there is no
        picture that is young enough.

        Raises DaemonUnavailableError, ApiRefusal.
        """
        age = Age(max_age, wait, stale_ok)
        lines = JsonLines(age.route("/v1/latest", cameras=cameras))
        reader, writer = await opened(self._path)
        try:
            writer.write(lines.request)
            while not lines.is_whole:
                data = await asyncio.wait_for(reader.read(1 << 16), age.limit_s)
                lines.feed(data)
                while (said := lines.take()) is not None:
                    yield said
                if not data and not lines.is_whole:
                    raise went_away(self._path)
        except TimeoutError:
            raise silent(self._path, age.limit_s) from None
        except (OSError, ValueError):
            raise went_away(self._path) from None
        finally:
            writer.close()

    async def snapshot(self, camera: str) -> Picture:
        """Take a picture now under a lease, and return it. It is published like a poll's picture.

        Raises DaemonUnavailableError, ApiRefusal, RtspBusy.
        """
        return (
            await exchange_async(self._path, "POST", f"{route_of(camera)}/snapshot", MAX_WORK_S)
        ).picture()

    @asynccontextmanager
    async def lease(
        self,
        camera: str,
        *,
        wait_s: float | None = None,
        priority: str = "live",
        label: str = "",
        ttl_s: float | None = None,
    ) -> AsyncIterator[AsyncHeldLease]:
        """Hold a lease of the camera's device while the block runs.

        Raises RtspBusy, DaemonUnavailableError, ApiRefusal.
        """
        held = await self._open(LeaseRequest(camera, wait_s, priority, label, ttl_s))
        try:
            yield held
            await held.give_back()
        finally:
            held.close()

    async def _open(self, request: LeaseRequest) -> AsyncHeldLease:
        reader, writer = await opened(self._path)
        exchange = LeaseExchange(request)
        limit_s = (MAX_LEASE_WAIT_S if request.wait_s is None else request.wait_s) + ANSWER_S
        try:
            writer.write(exchange.request())
            async with asyncio.timeout(limit_s):
                granted = await self._granted(reader, exchange)
        except (OSError, ValueError, LookupError, TypeError):  # TimeoutError is an OSError
            writer.close()
            raise DaemonUnavailableError(f"{self._path}: the daemon does not answer") from None
        except BaseException:
            writer.close()
            raise
        return AsyncHeldLease(reader, writer, exchange, granted)

    async def _granted(self, reader: asyncio.StreamReader, exchange: LeaseExchange) -> Granted:
        while (granted := exchange.take_grant()) is None:
            data = await reader.read(65536)
            exchange.feed(data)
            if not data and exchange.take_grant() is None:
                raise went_away(self._path)
        return granted
