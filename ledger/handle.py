"""Load, evolve, decide, append: the only door through which the ledger is written."""

import asyncio
from contextlib import suppress
from datetime import datetime
from uuid import UUID
from weakref import WeakValueDictionary

import msgspec

from ledger.actor import PLATFORM, Caller
from ledger.commands import Command, EnrolCard, OnCard, WhichCard, request_text
from ledger.entropy import Clock, Entropy
from ledger.entry import Answer, Draft, Entry, Request, Result, transaction_id
from ledger.errors import Rejected, Unavailable
from ledger.plans import Planner
from ledger.secrecy import Secrecy, WrongSecret
from ledger.staff import Identification
from ledger.store.keys import Keyring, SealBroken
from ledger.store.log import Log
from ledger.store.recorder import Append, Claim, Outcome, Stale, Taken, Written
from ledger.view import ClaimOn, Decision, Holder, View, holder_of, value_of

COMMAND_SECONDS_MAX = 2.8


class Handled(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """A command that is in the log for good. `answer` is the first one given, byte for byte, where it was replayed."""

    position: int
    created: bool
    replayed: bool = False
    answer: bytes | None = None
    result: Result | None = None


class Ledger:
    """Handles commands: decides each on current facts and appends what it makes, whole or not at all.

    Any number of processes may do so at once over one log.
    """

    def __init__(self, log: Log, keyring: Keyring, secrecy: Secrecy, clock: Clock, entropy: Entropy) -> None:
        self.log = log
        self.secrecy = secrecy
        self.clock = clock
        self._keyring = keyring
        self._planner = Planner(secrecy, entropy)
        self._locks: WeakValueDictionary[tuple[object, ...], asyncio.Lock] = WeakValueDictionary()

    async def open(self) -> None:
        """Opens the log, and raises `WrongSecret` if its database was begun with other secrets than these.

        With another pepper every PIN would be wrong and every customer new; with another master key nobody has a name.
        A database that does not answer yet is no reason not to start.
        """
        await self.log.open()
        with suppress(Unavailable):
            await self._check_secrets()

    async def _check_secrets(self) -> None:
        pepper = self.secrecy.blind_bytes("check", PLATFORM, "pepper")
        mine = {"pepper": pepper, "master_key": self._keyring.master.seal(b"master_key", b"check")}
        claims = tuple(Claim(PLATFORM, "secret", name, value) for name, value in mine.items())
        await self.log.append(Append(merchant=PLATFORM, claims=claims))
        first = await self.log.claims(PLATFORM, "secret", list(mine))
        if first["pepper"] != pepper:
            raise WrongSecret("LOYALTY_PEPPER is not the one that this database was begun with.")
        try:
            self._keyring.master.open(first["master_key"], b"check")
        except SealBroken:
            raise WrongSecret("LOYALTY_MASTER_KEY is not the one that this database was begun with.") from None

    async def close(self) -> None:
        """Writes what is queued and lets everything go."""
        await self.log.close()
        self.secrecy.close()

    async def handle(
        self,
        command: Command,
        caller: Caller,
        *,
        key: str | None = None,
        answer: Answer | None = None,
        occurred_at: datetime | None = None,
    ) -> Handled:
        """Records what the command makes, durably, before this returns.

        `key` makes a repetition answer what the first answered; `answer` renders that, from what is about to be
        recorded; `occurred_at` is for what happened earlier (imports). Raises `Rejected` where a rule refuses,
        `Unavailable` where the log cannot be asked: then nothing or everything was recorded, and the same key tells.
        """
        digest = self.secrecy.blind("request", caller.merchant_id, request_text(command)) if key else ""
        request = Request(
            command=command, caller=caller, key=key, digest=digest, answer=answer, occurred_at=occurred_at
        )
        try:
            async with asyncio.timeout(COMMAND_SECONDS_MAX), self._lock_for(command, caller):
                return await self._settled(request)
        except TimeoutError:
            raise Unavailable("the command took too long") from None

    async def _settled(self, request: Request) -> Handled:
        """Tries until nothing moves in between; the time that commands are given ends it if that never comes."""
        who = Identification(self.secrecy)
        handled = await self._attempt(request, who, fresh=False)
        while handled is None:
            handled = await self._attempt(request, who, fresh=True)
        return handled

    async def find_card(self, caller: Caller, which: WhichCard) -> UUID:
        """The card of the caller's merchant that is meant; raises `card_not_found`."""
        return await self._planner.card_stream(
            View(self.log, caller, self.clock.now(), self.clock.now(), fresh=True), which
        )

    def _lock_for(self, command: Command, caller: Caller) -> asyncio.Lock:
        """Commands for one card take turns within a process: all but the first would find it moved."""
        if isinstance(command, OnCard):
            which = command.which
            name: tuple[object, ...] = (caller.merchant_id, which.card_id or which.card_number or which.qr_code)
        elif isinstance(command, EnrolCard) and command.customer_id is not None:
            name = (caller.merchant_id, "customer", command.customer_id)
        else:
            return asyncio.Lock()
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = asyncio.Lock()
        return lock

    async def _attempt(self, request: Request, who: Identification, *, fresh: bool) -> Handled | None:
        """One try: None means that something had moved, so try again."""
        now = self.clock.now()
        view = View(self.log, request.caller, request.occurred_at or now, now, fresh=fresh)
        admitted = False
        try:
            await self._planner.admit(view)
            admitted = True
            decision = await self._planner.plan(view, request.command, who)
            if decision.reserves is not None:
                await self._reserve(request.caller.merchant_id, decision.reserves)
        except Rejected:
            if not await self._is_current(view):
                return None
            earlier = await self._earlier(request, view) if admitted else None
            if earlier is None:
                raise
            return earlier
        if decision.refusal is not None:
            if not await self._is_current(view):
                return None
            earlier = await self._earlier(request, view)
            if earlier is not None:
                return earlier
        entry = await Draft(request, view, decision, self._keyring).finished()
        outcome = await self._append(entry.append, view)
        match outcome:
            case Written(position):
                return self._written(entry, decision, position)
            case Stale():
                self.log.forget(entry.append.guards)
                return None
            case Taken(claim):
                self.log.forget(entry.append.guards)
                return await self._taken(request, view, claim)

    async def _is_current(self, view: View) -> bool:
        """Whether nothing that was read has moved; what did is read anew the next time."""
        current = await self.log.is_current(view.guards)
        if not current:
            self.log.forget(view.guards)
        return current

    async def _append(self, append: Append, view: View) -> Outcome:
        if append.events or append.claims:
            try:
                return await self.log.append(append)
            except Unavailable:
                # Nobody knows whether it was written, so what was cached may be overtaken.
                self.log.forget(append.guards)
                raise
        return Written(None) if await self.log.is_current(view.guards) else Stale()

    async def _reserve(self, merchant: UUID, wanted: ClaimOn) -> None:
        """Takes a name that is unique on the platform, before the merchant's own transaction uses it."""
        mine = value_of(Holder(stream=merchant))
        claim = Claim(PLATFORM, wanted.kind, wanted.key, mine)
        outcome = await self.log.append(Append(merchant=PLATFORM, claims=(claim,)))
        if isinstance(outcome, Taken) and await self.log.claim(PLATFORM, wanted.kind, wanted.key) != mine:
            raise Rejected(f"{wanted.kind}_taken", **{wanted.kind: wanted.key})

    # ---- after the append -------------------------------------------------------------------------------------

    def _written(self, entry: Entry, decision: Decision, position: int | None) -> Handled:
        events = entry.append.events
        for subject, key in entry.new_keys.items():
            self._keyring.remember(subject, key)
        if position is not None:
            last = {event.stream: position - len(events) + 1 + index for index, event in enumerate(events)}
            for stream, loaded in entry.streams.items():
                self.log.remember(msgspec.structs.replace(loaded, position=last[stream]))
        if decision.refusal is not None:
            raise decision.refusal
        assert entry.result is not None, "a decision that does not refuse has a main stream"
        return Handled(
            position=position if position is not None else entry.result.main.position,
            created=decision.created,
            answer=entry.answer,
            result=entry.result,
        )

    async def _earlier(self, request: Request, view: View) -> Handled | None:
        """What the same request was answered before: under its key, or for its order under another."""
        if request.key is not None:
            value = await self.log.claim(request.caller.merchant_id, "idempotency", request.name)
            if value is not None:
                return await self._replay(request, holder_of(value))
        for wanted in view.wanted:
            value = await self.log.claim(request.caller.merchant_id, wanted.kind, wanted.key)
            if value is not None:
                return await self._same_order(request, holder_of(value), wanted.digest)
        return None

    async def _replay(self, request: Request, holder: Holder) -> Handled:
        """The first answer, byte for byte; `idempotency_key_reused` if that was to another body."""
        if holder.digest != request.digest:
            raise Rejected("idempotency_key_reused")
        name = request.name
        if holder.answered_under is not None:
            name = holder.answered_under
            value = await self.log.claim(request.caller.merchant_id, "idempotency", name)
            assert value is not None, "an answer is kept for good"
            holder = holder_of(value)
        return await self._first_answer(holder, name)

    async def _first_answer(self, holder: Holder, name: str) -> Handled:
        answer = None
        if holder.answer is not None:
            key = self._keyring.master
            if holder.subject is not None:
                owner = await self.log.subject_key(holder.subject)
                if owner is None:
                    raise Rejected("card_erased")
                key = owner
            answer = key.open(holder.answer, name.encode())
        position = await self.log.position_of(holder.stream, holder.version)
        return Handled(position=position, created=holder.created, replayed=True, answer=answer)

    async def _same_order(self, request: Request, first: Holder, digest: str) -> Handled:
        """The same purchase again answers what the first did, whatever its key; another one is refused.

        The new key is kept with the answer, so that it cannot be used for anything else.
        """
        if first.digest != digest or first.answered_under is None:
            raise Rejected("order_reference_used", transaction_id=transaction_id(first.stream, first.version))
        merchant = request.caller.merchant_id
        stored = await self.log.claim(merchant, "idempotency", first.answered_under)
        assert stored is not None, "an answer is kept for good"
        handled = await self._first_answer(holder_of(stored), first.answered_under)
        if request.key is not None:
            pointer = msgspec.structs.replace(first, digest=request.digest)
            claim = Claim(merchant, "idempotency", request.name, value_of(pointer))
            await self.log.append(Append(merchant=merchant, claims=(claim,)))
        return handled

    async def _taken(self, request: Request, view: View, claim: Claim) -> Handled | None:
        """What a later comer is told; None where looking again with fresh eyes settles it."""
        earlier = await self._earlier(request, view)
        if earlier is None and claim.kind == "pin":
            raise Rejected("pin_taken")
        return earlier
