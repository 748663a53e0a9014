"""etcd as the store of a fleet, through its JSON gateway (etcd 3.4 and later).

Only this module knows etcd. Reads and swaps go to one endpoint; when it fails, the next call goes
to the next one. A swap is never sent a second time by itself: when its answer is lost, it may have
been made, or may be made later.

The gateway's watch has no heartbeats of its own. A host renews its own record every second, so a
watch that shows nothing for some seconds hangs; whoever reads it finds out.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp

from camserver.fleet.store import Change, Entry, Snapshot, StoreError, StoreUnknownError, Swap

CALL_S = 2.0
"""How long one call may take."""
CONNECT_S = 1.0
MAX_LINE_BYTES = 16 * 1024 * 1024
"""The longest message of a watch: all that one swap changes, and more."""
PAGE_KEYS = 5000
UNAUTHENTICATED, INVALID_TOKEN = 16, "etcdserver: invalid auth token"
RUBBISH = (KeyError, ValueError, TypeError, AttributeError, ArithmeticError)
NOT_MADE = frozenset((3, 5, 7, 8, 9, 11, 16))
"""gRPC codes with which etcd refuses a call before it does anything."""


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """What one node of etcd says of itself. `problems` are its alarms, in its own words."""

    version: str
    bytes: int
    has_leader: bool
    problems: tuple[str, ...]


class EtcdStore:
    """A FleetStore. `close` closes its connections."""

    def __init__(
        self,
        endpoints: tuple[str, ...],
        *,
        username: str = "",
        password: str = "",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`endpoints` are URLs, without credentials."""
        self._endpoints = tuple(endpoint.rstrip("/") for endpoint in endpoints)
        self._at = 0
        self._login = {"name": username, "password": password} if username else None
        self._token = ""
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    @property
    def endpoint(self) -> str:
        """The endpoint to which the next call goes."""
        return self._endpoints[self._at % len(self._endpoints)]

    def next_endpoint(self) -> None:
        """Use the next endpoint from now on, because this one does not answer."""
        self._at += 1

    async def close(self) -> None:
        """Close all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def read(self, prefix: str) -> Snapshot:
        """All keys below a prefix, at one revision. Raises StoreError."""
        key, end, revision = prefix.encode(), _end_of(prefix.encode()), 0
        entries: dict[str, Entry] = {}
        while True:
            answer = await self._call(
                "kv/range",
                {"key": _b64(key), "range_end": _b64(end), "limit": PAGE_KEYS}
                | ({"revision": str(revision)} if revision else {}),
            )
            try:
                revision = revision or int(answer["header"]["revision"])
                found = answer.get("kvs", [])
                for kv in found:
                    entries[_key_of(kv)] = _entry_of(kv)
            except RUBBISH:
                raise StoreError(f"{self.endpoint}: answers something that is not etcd's") from None
            if not answer.get("more") or not found:
                return Snapshot(revision, entries)
            key = base64.b64decode(found[-1]["key"]) + b"\0"

    async def swap(self, swap: Swap) -> int | None:
        """Make a swap. Returns its revision, or None when a key was not as expected.

        Raises StoreError, and StoreUnknownError.
        """
        compare = [
            {
                "key": _b64(key.encode()),
                "target": "MOD",
                "mod_revision": str(revision),
                "result": "EQUAL",
            }
            for key, revision in swap.expected.items()
        ]
        success = [
            {"requestDeleteRange": {"key": _b64(key.encode())}}
            if value is None
            else {"requestPut": {"key": _b64(key.encode()), "value": _b64(value)}}
            for key, value in swap.changes.items()
        ]
        answer = await self._call("kv/txn", {"compare": compare, "success": success}, changes=True)
        try:
            return int(answer["header"]["revision"]) if answer.get("succeeded") else None
        except RUBBISH:
            raise StoreUnknownError(
                f"{self.endpoint}: answers something that is not etcd's"
            ) from None

    async def compact(self, revision: int) -> None:
        """Forget all changes before a revision, of all who use this etcd. Raises StoreError."""
        await self._call("kv/compaction", {"revision": str(revision)})

    async def status(self) -> NodeStatus:
        """What the node says of itself. Raises StoreError."""
        answer = await self._call("maintenance/status", {})
        try:
            return NodeStatus(
                str(answer["version"]),
                int(answer.get("dbSize", 0)),
                bool(int(answer.get("leader", 0))),
                tuple(str(problem) for problem in answer.get("errors", ())),
            )
        except RUBBISH:
            raise StoreError(f"{self.endpoint}: answers something that is not etcd's") from None

    async def watch(self, prefix: str, after: int) -> AsyncIterator[Change]:
        """All changes after a revision. The first one is a heartbeat: the watch has begun.

        Raises StoreError when it ends, or when the changes are not kept any more.
        """
        key = prefix.encode()
        create = {
            "key": _b64(key),
            "range_end": _b64(_end_of(key)),
            "start_revision": str(after + 1),
            "progress_notify": True,
        }
        await self._authenticate()
        try:
            async with self._connections().post(
                f"{self.endpoint}/v3/watch",
                data=json.dumps({"create_request": create}),
                headers=self._headers(),
                timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_S),
            ) as answer:
                async for line in _lines(answer):
                    yield _change_of(line, after)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise StoreError(f"{self.endpoint}: the watch broke ({_why(error)})") from None
        except RUBBISH:
            raise StoreError(f"{self.endpoint}: answers something that is not etcd's") from None
        raise StoreError(f"{self.endpoint}: the watch was ended")

    # ---- calls

    async def _call(
        self, method: str, request: dict[str, Any], *, changes: bool = False
    ) -> dict[str, Any]:
        """Call a method. `changes`: an answer that is lost leaves its outcome unknown.

        Raises StoreError and StoreUnknownError.
        """
        await self._authenticate()
        code, answer = await self._post(method, request, changes=changes)
        if self._login and (code == UNAUTHENTICATED or _says(answer) == INVALID_TOKEN):
            self._token = ""  # it has ended; nothing was done
            await self._authenticate()
            code, answer = await self._post(method, request, changes=changes)
        if code == 0:
            return answer
        kind = StoreUnknownError if changes and code not in NOT_MADE else StoreError
        raise kind(f"{self.endpoint}: {_says(answer) or f'error {code}'}")

    async def _authenticate(self) -> None:
        if self._login is None or self._token:
            return
        code, answer = await self._post("auth/authenticate", self._login, changes=False)
        if code or not isinstance(answer.get("token"), str):
            raise StoreError(f"{self.endpoint}: {_says(answer) or 'gives no token'}")
        self._token = answer["token"]

    async def _post(
        self, method: str, request: dict[str, Any], *, changes: bool
    ) -> tuple[int, dict[str, Any]]:
        """(gRPC code, answer). The code is 0 when the call was done."""
        endpoint = self.endpoint
        try:
            async with asyncio.timeout(CALL_S):
                async with self._connections().post(
                    f"{endpoint}/v3/{method}", data=json.dumps(request), headers=self._headers()
                ) as answer:
                    body = json.loads(await answer.read())
        except aiohttp.ClientConnectorError as error:
            self.next_endpoint()
            raise StoreError(f"{endpoint}: {_why(error.os_error)}") from None
        except TimeoutError:
            self.next_endpoint()
            raise _lost(f"{endpoint}: no answer within {CALL_S:g} s", changes) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            self.next_endpoint()
            raise _lost(f"{endpoint}: the answer broke off ({_why(error)})", changes) from None
        if not isinstance(body, dict):
            raise _lost(f"{endpoint}: answers something that is not etcd's", changes)
        code = body.get("code", 0) if "header" not in body else 0
        return (code if isinstance(code, int) else 2), body

    def _connections(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._tls or True),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=CALL_S, connect=CONNECT_S),
            )
        return self._session

    def _headers(self) -> dict[str, str]:
        return {"Authorization": self._token} if self._token else {}


def _lost(why: str, changes: bool) -> StoreError:
    return StoreUnknownError(why) if changes else StoreError(why)


async def _lines(answer: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    """The JSON objects of a streamed answer. Raises ValueError for a line that is too long."""
    rest = b""
    async for piece in answer.content.iter_any():
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > MAX_LINE_BYTES:
            raise ValueError
        for line in lines:
            if line.strip():
                yield json.loads(line)


def _change_of(line: dict[str, Any], after: int) -> Change:
    """A message of a watch that began after a revision.

    The header has the newest revision of the store. Changes up to it may still come, except when
    the message has no events and is not the first one (a progress notification).

    Raises StoreError when it says that the watch has ended.
    """
    if "error" in line:
        raise StoreError(f"the watch was refused: {_says(line['error'])}")
    result = line["result"]
    if result.get("canceled"):
        compacted = result.get("compact_revision")
        why = f"changes before {compacted} are not kept" if compacted else _says(result)
        raise StoreError(f"the watch was ended: {why}")
    entries: dict[str, Entry | None] = {}
    for event in result.get("events", ()):
        kv = event["kv"]
        entries[_key_of(kv)] = None if event.get("type") == "DELETE" else _entry_of(kv)
    if result.get("created"):
        return Change(after)
    changed = [int(event["kv"]["mod_revision"]) for event in result.get("events", ())]
    return Change(max(changed, default=int(result["header"]["revision"])), entries)


def _says(answer: Any) -> str:
    """Etcd's own words for an error. They contain no credentials."""
    for name in ("message", "error", "cancel_reason"):
        text = answer.get(name) if isinstance(answer, dict) else None
        if isinstance(text, str) and text:
            return text[:200]
    return ""


def _why(error: BaseException) -> str:
    """Why a connection failed, without the address that is in asyncio's text."""
    number = getattr(error, "errno", None) or 0
    return os.strerror(number).lower() if number > 0 else type(error).__name__


def _key_of(kv: dict[str, Any]) -> str:
    return base64.b64decode(kv["key"]).decode(errors="replace")


def _entry_of(kv: dict[str, Any]) -> Entry:
    return Entry(base64.b64decode(kv.get("value", "")), int(kv["mod_revision"]))


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _end_of(prefix: bytes) -> bytes:
    """The first key after all keys with this prefix."""
    return prefix[:-1] + bytes((prefix[-1] + 1,))
