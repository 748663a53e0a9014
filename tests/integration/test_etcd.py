"""The store of a fleet on a real etcd: Debian's etcd-server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from etcd_server import Etcd
from support import free_port

from camserver.fleet.etcd import EtcdStore
from camserver.fleet.store import Change, StoreError, StoreUnknownError, Swap


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Etcd]:
    server = Etcd(tmp_path)
    server.start()
    yield server
    server.stop()


@contextlib.asynccontextmanager
async def store_at(*urls: str, **login: str) -> AsyncIterator[EtcdStore]:
    store = EtcdStore(urls, **login)  # type: ignore[arg-type]
    try:
        yield store
    finally:
        await store.close()


def put(key: str, value: bytes, revision: int = 0) -> Swap:
    return Swap({key: revision}, {key: value})


async def test_swaps_are_made_together_or_not_at_all(etcd: Etcd) -> None:
    async with store_at(etcd.url) as store:
        empty = await store.read("/f/")
        assert empty.entries == {}
        first = await store.swap(Swap({"/f/a": 0, "/f/b": 0}, {"/f/a": b"1", "/f/b": b"\xff"}))
        assert first == empty.revision + 1
        assert await store.swap(Swap({"/f/a": first, "/f/b": 0}, {"/f/a": b"2"})) is None
        assert await store.swap(put("/f/a", b"2", 0)) is None
        second = await store.swap(Swap({"/f/a": first}, {"/f/a": b"2", "/f/b": None}))
        snapshot = await store.read("/f/")
        assert snapshot.revision == second
        assert {key: entry.value for key, entry in snapshot.entries.items()} == {"/f/a": b"2"}
        assert snapshot.entries["/f/a"].revision == second
        await store.swap(put("/g/other", b"x"))
        assert (await store.read("/f/")).entries.keys() == {"/f/a"}


async def test_many_keys_are_read_at_one_revision(etcd: Etcd) -> None:
    async with store_at(etcd.url) as store:
        for batch in range(100):
            keys = [f"/f/{batch:03}-{n:03}" for n in range(60)]
            assert await store.swap(Swap(dict.fromkeys(keys, 0), dict.fromkeys(keys, b"x" * 100)))
        snapshot = await store.read("/f/")
        assert len(snapshot.entries) == 6000


async def test_a_watch_shows_every_change_in_order(etcd: Etcd) -> None:
    async with store_at(etcd.url) as store:
        start = (await store.read("/f/")).revision
        await store.swap(put("/f/a", b"1"))
        changes: list[Change] = []

        async def watch() -> None:
            async for change in store.watch("/f/", start):
                changes.append(change)  # noqa: PERF401 - looked at meanwhile

        watching = asyncio.create_task(watch())
        async with asyncio.timeout(30):
            while not any("/f/a" in change.entries for change in changes):
                await asyncio.sleep(0.01)
            await store.swap(put("/g/other", b"x"))
            await store.swap(Swap({"/f/a": start + 1}, {"/f/a": None, "/f/b": b"2"}))
            while not any("/f/b" in change.entries for change in changes):
                await asyncio.sleep(0.01)
        shown = [change for change in changes if change.entries]
        assert [change.revision for change in shown] == [start + 1, start + 3]
        assert shown[1].entries["/f/a"] is None
        etcd.stop()
        with pytest.raises(StoreError):
            await asyncio.wait_for(watching, 30)


async def test_changes_that_are_not_kept_are_an_error(etcd: Etcd) -> None:
    async with store_at(etcd.url) as store:
        for n in range(5):
            await store.swap(Swap({}, {"/f/a": b"%d" % n}))
        revision = (await store.read("/f/")).revision
        await store.compact(revision)
        with pytest.raises(StoreError, match="not kept"):
            async for _ in store.watch("/f/", 1):
                pass


async def test_what_is_known_of_a_swap_when_the_store_fails(etcd: Etcd) -> None:
    """Refused before it was sent: not made. No answer: unknown. Then the next endpoint is used."""
    async with store_at(f"http://127.0.0.1:{free_port()}", etcd.url) as store:
        with pytest.raises(StoreError) as refused:
            await store.swap(put("/f/a", b"1"))
        assert not isinstance(refused.value, StoreUnknownError)
        assert "refused" in str(refused.value)
        assert await store.swap(put("/f/a", b"1"))
    async with store_at(etcd.url) as store:
        await store.read("/f/")
        etcd.signal(signal.SIGSTOP)
        with pytest.raises(StoreUnknownError, match="no answer within 2 s"):
            await store.swap(put("/f/late", b"1"))
        with pytest.raises(StoreError, match="no answer within 2 s"):
            await store.read("/f/")
        etcd.signal(signal.SIGCONT)
        async with asyncio.timeout(30):
            while True:
                # Only a read can tell what was made, and the write may still land after it
                with contextlib.suppress(StoreError):
                    found = (await store.read("/f/")).entries
                    late = found["/f/late"].revision if "/f/late" in found else 0
                    if await store.swap(put("/f/late", b"2", late)):
                        break


async def test_a_full_store_says_so(etcd: Etcd) -> None:
    """The quota is used up: swaps are refused, reads go on."""
    etcd.stop()
    etcd.start(f"--quota-backend-bytes={4 * 1024 * 1024}")
    async with store_at(etcd.url) as store:

        async def fill() -> None:
            for n in range(100):
                await store.swap(Swap({}, {f"/f/{n}": os.urandom(200_000)}))

        with pytest.raises(StoreError, match="space exceeded") as full:
            await fill()
        assert not isinstance(full.value, StoreUnknownError)
        assert (await store.read("/f/")).entries


async def test_user_and_password(etcd: Etcd) -> None:
    """A wrong one is said without it; a token that has ended is renewed."""
    for call, body in (
        ("auth/user/add", '{"name": "root", "password": "s3cret"}'),
        ("auth/role/add", '{"name": "root"}'),
        ("auth/user/grant", '{"user": "root", "role": "root"}'),
        ("auth/enable", "{}"),
    ):
        assert etcd.control(call, body) == 0, call
    async with store_at(etcd.url, username="root", password="s3cret") as store:
        assert await store.swap(put("/f/a", b"1"))
        store._token = "ended.1"
        assert (await store.read("/f/")).entries
    async with store_at(etcd.url, username="root", password="wr0ng") as store:
        with pytest.raises(StoreError, match="authentication failed") as wrong:
            await store.read("/f/")
        assert "wr0ng" not in str(wrong.value)
    async with store_at(etcd.url) as store:
        with pytest.raises(StoreError):
            await store.read("/f/")


@pytest.mark.parametrize("answer", [b"", b"hello", b"[]", b'{"header": 1}', b'{"kvs": [1]}'])
async def test_another_service_is_no_store(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with store_at(f"http://127.0.0.1:{port}") as store:
        with pytest.raises(StoreError):
            await store.read("/f/")
        with pytest.raises(StoreUnknownError):
            await store.swap(put("/f/a", b"1"))
        with pytest.raises(StoreError):
            async for _ in store.watch("/f/", 1):
                pass
    server.close()
