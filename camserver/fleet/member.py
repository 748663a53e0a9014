"""The host as a member of its fleet: it joins, lives one epoch after another, and leaves."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from camserver.events import Event
from camserver.events.fleet import FleetFenced, FleetLeaveIncomplete, FleetLeft, FleetWaiting
from camserver.fleet.epoch import Epoch
from camserver.fleet.health import StoreHealth
from camserver.fleet.holds import Holds
from camserver.fleet.host import FleetHost, next_epoch
from camserver.fleet.local import LocalDevices
from camserver.fleet.mirror import Mirror
from camserver.fleet.orders import Fenced, Phase
from camserver.fleet.parts import Timer
from camserver.fleet.records import ENDED, HoldRecord, HostRecord, Keys, MetaRecord
from camserver.fleet.store import FleetStore, Snapshot, StoreError, Swap
from camserver.fleet.terms import FleetTerms

AskPeer = Callable[[str, dict[str, object]], Awaitable[bool]]
"""Asks a host to vouch for this one: (its name, the question)."""
HELD_S = 5.0
"""How long the hosts may take to say that they know of a hold, or of its end."""
RETRY_S = 2.0
"""How often a host that cannot join tries again."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this host is. `record` is its record without an epoch."""

    fleet: str
    name: str
    record: HostRecord


class FleetMember:
    """One host in its fleet. `run` is a job of the daemon; `leave` ends it in order."""

    def __init__(
        self,
        identity: Identity,
        terms: FleetTerms,
        store: FleetStore,
        local: LocalDevices,
        timer: Timer,
        emit: Callable[[Event], None],
        clock: Callable[[], float],
        ask: AskPeer | None = None,
    ) -> None:
        """`clock` counts in suspend, too. `ask` asks other hosts; None: it cannot."""
        self.identity = identity
        self.terms = terms
        self.health = StoreHealth(emit, clock)
        self.waits_for = "the store"
        """Why it is not in the fleet. Empty when it is."""
        self._store = store
        self._local = local
        self._timer = timer
        self._emit = emit
        self._clock = clock
        self._ask_peer = ask
        self._keys = Keys(identity.fleet)
        self._holds = Holds(terms)
        self._past: deque[str] = deque(maxlen=100)  # the tokens of our epochs
        self._record = identity.record
        self._epoch: Epoch | None = None
        self._is_leaving = False
        self._done = asyncio.Event()
        self._said = ""

    @property
    def host(self) -> FleetHost | None:
        """The present epoch. None before the store was read for the first time."""
        return None if self._epoch is None else self._epoch.host

    def inventory_changed(self, inventory: str) -> None:
        """Take over the hash of a new inventory."""
        self._record = self._record.model_copy(update={"inventory": inventory})
        if self._epoch is not None:
            self._epoch.inventory_changed(inventory)

    async def run(self) -> None:
        """Be a member, until `leave` is done."""
        try:
            while not self._is_leaving:
                self._epoch = await self._begin()
                if self._is_leaving:
                    return
                watching = asyncio.create_task(self._say_waiting(self._epoch.host))
                try:
                    await self._epoch.run()
                finally:
                    watching.cancel()
                await self._local.forget_all()
                await self._after(self._epoch.host)
        finally:
            self._done.set()

    async def leave(self, limit_s: float) -> None:
        """Hand over every device, within a limit."""
        self._is_leaving = True
        host = self.host
        if self._epoch is None or host is None:
            return
        self._epoch.leave()
        self._local.leave(limit_s * 0.8)
        try:
            async with asyncio.timeout(limit_s):
                await self._done.wait()
        except TimeoutError:
            reason = self.health.reason or "their sessions have not ended"
            self._emit(
                FleetLeaveIncomplete(
                    devices=len(host.devices.owned), limit_s=limit_s, reason=reason
                )
            )

    async def drain(self, name: str, *, drained: bool) -> None:
        """Say whether a host shall own nothing. Raises StoreError, LookupError for an unknown host.

        The host need not run. It hands over its devices, and stays in the fleet.
        """
        host = self.host
        if host is None or name not in host.mirror.hosts:
            raise LookupError(name)
        key, revision = self._keys.drain(name), host.mirror.drained.get(name, 0)
        if bool(revision) == drained:
            return
        if await self._store.swap(Swap({key: revision}, {key: b"1" if drained else None})) is None:
            raise StoreError("somebody else has just changed it")

    async def hold(self, for_s: float) -> tuple[str, ...]:
        """Let all hosts have sessions for `for_s` seconds after a renewal; 0 is as ever.

        Returns the hosts whose records do not say so after HELD_S. Raises StoreError.
        """
        host = self.host
        if host is None:
            raise StoreError(self.waits_for)
        key = self._keys.hold
        known = (await self._store.read(key)).entries.get(key)
        if known is not None or for_s:
            record = HoldRecord(for_s=for_s).encode() if for_s else None
            swap = Swap({key: 0 if known is None else known.revision}, {key: record})
            if await self._store.swap(swap) is None:
                raise StoreError("somebody else has just changed it")
        wanted = for_s or self.terms.valid_s
        until = self._clock() + HELD_S
        while (  # noqa: ASYNC110 - it follows the store, and may end at any time
            late := _others_than(host.mirror, wanted)
        ) and self._clock() < until:
            await asyncio.sleep(RETRY_S / 10)
        return late

    async def _begin(self) -> Epoch:
        """A new epoch, as soon as the store can be read and its terms are ours."""
        while True:
            try:
                snapshot = await self._store.read(self._keys.prefix)
            except StoreError as error:
                self.health.failed(error)
                self._wait_for(str(error))
            else:
                self.health.answered()
                mirror = Mirror(self._keys, self.terms, self._holds)
                mirror.replace(snapshot, self._clock())
                if why := _refusal(mirror, self.terms):
                    self._wait_for(why)
                else:
                    return self._epoch_of(mirror, snapshot)
            await asyncio.sleep(RETRY_S)

    def _epoch_of(self, mirror: Mirror, snapshot: Snapshot) -> Epoch:
        name = self.identity.name
        me = next_epoch(mirror, name, self._record)
        host = FleetHost(name, me, mirror, self.terms, tuple(self._past))
        self._past.append(me.token)
        host.replace(snapshot, self._clock())
        return Epoch(
            host,
            self._store,
            self._local,
            self._timer,
            self.health,
            self._emit,
            self._clock,
            None if self._ask_peer is None else partial(self._ask, host.epoch, self._ask_peer),
        )

    async def _ask(self, epoch: int, ask: AskPeer, host: str, its_epoch: int) -> bool:
        question = {"host": self.identity.name, "epoch": epoch, "yours": its_epoch}
        return await ask(host, question)

    def promise(self, host: str, its_epoch: int, our_epoch: int) -> bool:
        """Promise not to declare a host dead for W, because it has asked. False: refused."""
        mine = self.host
        return mine is not None and mine.promise(host, its_epoch, our_epoch, self._clock())

    def url_of(self, name: str) -> str:
        """Where another host is reached. Empty when it cannot be, or is not live."""
        mine = self.host
        record = None if mine is None else mine.mirror.host(name)
        if record is None or record.state in ENDED or not record.url.startswith("https://"):
            return ""
        return record.url

    async def _say_waiting(self, host: FleetHost) -> None:
        """Say when the name of this host is in use for longer than an earlier process may live."""
        started = self._clock()
        while host.phase is Phase.JOINING:
            record = host.mirror.host(self.identity.name)
            if record is not None and host.name_is_free_in_s(self._clock()) > 0:
                where = "another machine" if record.machine_id != self._record.machine_id else "it"
                limit_s = host.silence.limit_s(self.identity.name)
                why = f"its name is in use until {where} was silent for {limit_s:g} s"
                self.waits_for = why
                if self._clock() - started > 2 * self.terms.silence_s:
                    self._wait_for(why)
            await asyncio.sleep(RETRY_S / 4)
        self.waits_for = self._said = ""

    def _wait_for(self, reason: str) -> None:
        self.waits_for = reason
        if reason != self._said:
            self._said = reason
            self._emit(
                FleetWaiting(fleet=self.identity.fleet, host=self.identity.name, reason=reason)
            )

    async def _after(self, host: FleetHost) -> None:
        """Say how an epoch has ended, and wait until the next one may begin."""
        fleet, name = self.identity.fleet, self.identity.name
        if host.phase is Phase.JOINING:  # it was stopped before it had joined
            return
        if host.fenced is None:
            self._emit(FleetLeft(fleet=fleet, host=name))
            return
        self._emit(FleetFenced(fleet=fleet, host=name, reason=host.fenced))
        if host.fenced is Fenced.HISTORY_CHANGED:
            # What the store says of owners may be old. All that were valid are not after W.
            self.waits_for = host.fenced
            left_s = self._holds.over_at() - self._clock()
            await asyncio.sleep(max(host.mirror.silence_s, left_s))


def _others_than(mirror: Mirror, valid_s: float) -> tuple[str, ...]:
    """The live hosts whose records say another time of validity."""
    return tuple(sorted(name for name, record in mirror.live() if record.valid_s != valid_s))


def _refusal(mirror: Mirror, terms: FleetTerms) -> str:
    """Why this host must not join. Empty when it may."""
    if mirror.meta is None:
        return ""
    if not isinstance(mirror.meta.record, MetaRecord):
        return f"the terms of the fleet cannot be read: {mirror.faults.get(mirror.keys.meta, '')}"
    return mirror.meta.record.refusal(terms) or ""
