"""What `camserver doctor --fleet` finds: etcd, the hosts, their clocks and their certificates."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import aiohttp

from camserver.config.fleet import FleetTable
from camserver.fleet.etcd import EtcdStore
from camserver.fleet.holds import Holds
from camserver.fleet.mirror import Mirror
from camserver.fleet.records import HostRecord, HostState, Keys, MetaRecord
from camserver.fleet.store import StoreError
from camserver.fleet.terms import FleetTerms
from camserver.fleet.tls import client_context

LARGE_BYTES = 1_500_000_000
"""etcd's quota is 2 GiB, unless it was set."""
UNCOMPACTED = 500_000
"""So many changes are kept for some days, when nobody compacts."""
LOOKS_S = 2.5
"""The time between two looks: each host renews meanwhile."""
CLOCK_S = 2.0
DAYS_LEFT = 30
ASK_S = 3.0


@dataclass(frozen=True, slots=True)
class FleetFinding:
    """One finding, and advice when it is not ok."""

    ok: bool
    text: str
    advice: str = ""


async def examine(table: FleetTable, inventory: str) -> AsyncIterator[FleetFinding]:
    """Examine the fleet of a host, whose inventory has this hash. Yields what is found."""
    for url in table.etcd:
        yield await _node(store_of(table, (url,)), url)
    store = store_of(table, tuple(table.etcd))
    keys = Keys(table.name)
    try:
        terms = FleetTerms(vouch=table.vouch)
        first = Mirror(keys, terms, Holds(terms))
        first.replace(await store.read(keys.prefix), 0.0)
        yield await _compaction(store, keys, first.revision)
        await asyncio.sleep(LOOKS_S)
        second = Mirror(keys, terms, Holds(terms))
        second.replace(await store.read(keys.prefix), 0.0)
    except StoreError as error:
        yield FleetFinding(False, f"the records cannot be read: {error}", "look at etcd first")
        return
    finally:
        await store.close()
    for finding in _records(table, first, second, inventory):
        yield finding
    for name, record in sorted(second.live()):
        yield await _peer(table, name, record)


def store_of(table: FleetTable, urls: tuple[str, ...]) -> EtcdStore:
    """The store of a [fleet] table. Raises OSError when etcd_ca_file cannot be used."""
    authority = table.etcd_ca_file
    return EtcdStore(
        urls,
        username=table.username or "",
        password=table.password or "",
        tls=None if authority is None else ssl.create_default_context(cafile=authority),
    )


async def _node(store: EtcdStore, url: str) -> FleetFinding:
    started = time.monotonic()
    try:
        status = await store.status()
    except StoreError as error:
        return FleetFinding(False, f"etcd {error}", "is it running, and reached from here?")
    finally:
        await store.close()
    took_ms = (time.monotonic() - started) * 1000
    text = f"etcd {url}: version {status.version}, {status.bytes / 1e6:.0f} MB, {took_ms:.0f} ms"
    if status.problems:
        advice = "compact and defragment, then `etcdctl alarm disarm`"
        return FleetFinding(False, f"{text}; it says {', '.join(status.problems)}", advice)
    if not status.has_leader:
        return FleetFinding(False, f"{text}; it knows no leader", "most nodes must run")
    if status.bytes > LARGE_BYTES:
        return FleetFinding(False, text, "its quota is nearly full: compact and defragment")
    return FleetFinding(True, text)


async def _compaction(store: EtcdStore, keys: Keys, revision: int) -> FleetFinding:
    """Whether somebody compacts: an old revision is not kept any more."""
    oldest = max(1, revision - UNCOMPACTED)
    kept = False
    with contextlib.suppress(StoreError, TimeoutError):
        async with asyncio.timeout(ASK_S):
            async for _ in store.watch(keys.prefix, oldest):
                kept = True
                break
    if kept and revision > UNCOMPACTED:
        advice = "does a host of the fleet run for longer than an hour? may its user compact?"
        text = f"etcd keeps more than {UNCOMPACTED} changes: nobody compacts"
        return FleetFinding(False, text, advice)
    return FleetFinding(True, f"etcd is at revision {revision}")


def _records(
    table: FleetTable, first: Mirror, second: Mirror, inventory: str
) -> Iterator[FleetFinding]:
    meta = None if second.meta is None else second.meta.record
    refusal = meta.refusal(second.terms) if isinstance(meta, MetaRecord) else None
    if refusal:
        yield FleetFinding(False, refusal, "run the same version and the same [fleet] keys")
    for fault in second.faults.values():
        yield FleetFinding(False, f"a record cannot be read: {fault}", "is a newer version there?")
    for name, record in sorted(second.live()):
        before = first.hosts.get(name)
        renews = before is None or before.revision != second.hosts[name].revision
        text = f"host {name}: {record.state}, epoch {record.epoch}"
        if not renews:
            text += f", has not renewed for {LOOKS_S:g} s"
            yield FleetFinding(False, text, "is it running, and does it reach etcd?")
        elif record.inventory != inventory:
            advice = "give all hosts the same inventory"
            yield FleetFinding(False, f"{text}, another inventory than this one", advice)
        else:
            yield FleetFinding(True, text)
    for name in sorted(second.hosts):
        ended = second.host(name)
        if ended is not None and ended.state is HostState.DEAD:
            yield FleetFinding(False, f"host {name} was declared dead", "start it again")
    if second.host(table.host_name) is None:
        yield FleetFinding(
            False, f"this host, {table.host_name}, has never been in the fleet", "start camserver"
        )


async def _peer(table: FleetTable, name: str, record: HostRecord) -> FleetFinding:
    """Ask a host over its `listen`: its certificate, and its clock."""
    if not record.url:
        return FleetFinding(True, f"host {name} has no listen: its pictures are only there")
    if table.ca_file is None or table.cert_file is None or table.key_file is None:
        return FleetFinding(True, f"host {name}: not asked, because this host has no certificate")
    context = client_context(table.ca_file, table.cert_file, table.key_file)
    timeout = aiohttp.ClientTimeout(total=ASK_S)
    url = f"{record.url}/healthz"
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(url, ssl=context, server_hostname=name) as answer,
        ):
            certificate = answer.connection and answer.connection.transport
            days = _days_left(certificate)
            said = email.utils.parsedate_to_datetime(answer.headers.get("Date", ""))
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        why = str(error) or type(error).__name__
        return FleetFinding(False, f"host {name} at {record.url}: {why}", "see [fleet] listen, url")
    off_s = said.timestamp() - time.time()
    if abs(off_s) > CLOCK_S:
        text = f"host {name}: its clock differs by {off_s:+.0f} s from this one"
        return FleetFinding(False, text, "set both by NTP: pictures carry these times")
    if days is not None and days < DAYS_LEFT:
        text = f"host {name}: its certificate ends in {days} days"
        return FleetFinding(False, text, f"`camserver fleet ca issue {name}`, then restart it")
    return FleetFinding(True, f"host {name} answers at {record.url}")


def _days_left(transport: asyncio.BaseTransport | None) -> int | None:
    """How long the certificate of the other side is valid."""
    certificate = None if transport is None else transport.get_extra_info("peercert")
    if not certificate or "notAfter" not in certificate:
        return None
    return int((ssl.cert_time_to_seconds(certificate["notAfter"]) - time.time()) // 86400)
