"""Load, evolve, decide, append: the only door through which the ledger is written."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from datetime import datetime
from uuid import UUID
from weakref import WeakValueDictionary

import msgspec

from ledger.actor import PLATFORM, Caller
from ledger.commands import Command, EnrolCard, ImportCard, MergeCards, OnCard, WhichCard, request_text
from ledger.entropy import Clock, Entropy
from ledger.entry import Answer, Draft, Entry, Request, Result, name_of, transaction_id
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


class Foretold(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """What a command would answer, as of a position of the log."""

    position: int
    answer: bytes


def claims_of(entry: Entry | Rejected) -> Sequence[Claim]:
    """What an entry would take; a refusal takes nothing."""
    return entry.append.claims if isinstance(entry, Entry) else ()


def result_of(entry: Entry) -> Result:
    """What an entry that refuses nothing comes to."""
    assert entry.result is not None, "a decision that does not refuse has a main stream"
    return entry.result


def names_in(command: Command) -> set[str]:
    """What a command calls those whose turn it has to wait for: cards, and customers who are given one."""
    match command:
        case OnCard(which=which):
            return {str(which.card_id or which.card_number or which.qr_code)}
        case MergeCards(which=which, into=into):
            return {str(which.card_id or which.card_number or which.qr_code), str(into)}
        case EnrolCard(customer_id=str() as reference):
            return {f"customer:{reference}"}
        case _:
            return set()


def foretold(position: int, answer: bytes | None) -> Foretold:
    """An answer that was rendered, though nothing stands behind it."""
    assert answer is not None, "an answer was asked for"
    return Foretold(position=position, answer=answer)


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
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

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
        digest = self.digest(command, caller) if key else ""
        request = Request(
            command=command, caller=caller, key=key, digest=digest, answer=answer, occurred_at=occurred_at
        )
        try:
            async with asyncio.timeout(COMMAND_SECONDS_MAX), AsyncExitStack() as turns:
                for turn in self._turns_of(command, caller):
                    await turns.enter_async_context(turn)
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

    async def preview(
        self, command: Command, caller: Caller, answer: Answer, *, occurred_at: datetime | None = None
    ) -> Foretold:
        """What the command would answer, decided as `handle` does but for the PIN, with nothing written.

        Raises `Rejected` as the command would. `occurred_at` may lie in the future.
        """
        request = Request(command=command, caller=caller, key=None, digest="", answer=answer, occurred_at=occurred_at)
        now = self.clock.now()
        view = View(self.log, caller, occurred_at or now, now, fresh=True)
        await self._planner.admit(view)
        earlier = None
        try:
            decision = await self._planner.plan(view, command, Identification(self.secrecy, asks=False))
        except Rejected:
            earlier = await self._earlier(request, view)
            if earlier is None:
                raise
            return foretold(earlier.position, earlier.answer)
        earlier = await self._earlier(request, view)
        if earlier is not None:
            return foretold(earlier.position, earlier.answer)
        entry = await Draft(request, view, decision, self._keyring).finished()
        return foretold(max(loaded.position for loaded in view.loaded.values()), entry.answer)

    async def rehearse(self, commands: Sequence[ImportCard], caller: Caller) -> list[Result | Rejected]:
        """What `handle` would make of each command if it came alone and without a key, with nothing written.

        As there, each is decided on what is cached, and anew only where the log would not take that; the log is asked
        about all of them at once.
        """
        tries = [await self._rehearsed(command, caller, fresh=False) for command in commands]
        guards = {stream: version for view, _ in tries for stream, version in view.guards.items()}
        current = await self.log.is_current(guards)
        taken = await self._taken_of([claim for _, entry in tries for claim in claims_of(entry)])
        again = {
            index: self._rehearsed(command, caller, fresh=True)
            for index, (command, (_, entry)) in enumerate(zip(commands, tries, strict=True))
            if not current or not taken.isdisjoint(claim[:3] for claim in claims_of(entry))
        }
        for index, second in zip(again, await asyncio.gather(*again.values()), strict=True):
            tries[index] = second
        return [entry if isinstance(entry, Rejected) else result_of(entry) for _, entry in tries]

    async def _rehearsed(self, command: Command, caller: Caller, *, fresh: bool) -> tuple[View, Entry | Rejected]:
        request = Request(command=command, caller=caller, key=None, digest="", answer=None, occurred_at=None)
        now = self.clock.now()
        view = View(self.log, caller, now, now, fresh=fresh)
        try:
            await self._planner.admit(view)
            decision = await self._planner.plan(view, command, Identification(self.secrecy, asks=False))
        except Rejected as refusal:
            return view, refusal
        return view, await Draft(request, view, decision, self._keyring).finished()

    async def _taken_of(self, claims: Sequence[Claim]) -> set[tuple[UUID, str, str]]:
        """The names of those claims that are taken."""
        keys: dict[tuple[UUID, str], list[str]] = {}
        for claim in claims:
            keys.setdefault((claim.merchant, claim.kind), []).append(claim.key)
        found = await asyncio.gather(*(self.log.claims(*kind, of_kind) for kind, of_kind in keys.items()))
        return {(*kind, key) for kind, taken in zip(keys, found, strict=True) for key in taken}

    def digest(self, command: Command, caller: Caller) -> str:
        """What tells a repetition of a command from another command under its key."""
        return self.secrecy.blind("request", caller.merchant_id, request_text(command))

    async def used_keys(self, keys: Sequence[str], caller: Caller) -> dict[str, str]:
        """Those of the idempotency keys that the caller has used, each with the digest of what it was used for."""
        names = {name_of(caller, key): key for key in keys}
        used = await self.log.claims(caller.merchant_id, "idempotency", list(names))
        return {names[name]: holder_of(value).digest for name, value in used.items()}

    async def find_card(self, caller: Caller, which: WhichCard) -> UUID:
        """The card of the caller's merchant that is meant; raises `card_not_found`."""
        return await self._planner.cards.card_stream(
            View(self.log, caller, self.clock.now(), self.clock.now(), fresh=True), which
        )

    def _turns_of(self, command: Command, caller: Caller) -> list[asyncio.Lock]:
        """Commands for one card take turns within a process: all but the first would find it moved.

        Whoever needs two turns waits for them in the order of their names, so that nobody waits in a ring.
        """
        names = sorted(f"{caller.merchant_id}:{name}" for name in names_in(command))
        return [self._locks.setdefault(name, asyncio.Lock()) for name in names]

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
        result = result_of(entry)
        return Handled(
            position=position if position is not None else result.main.position,
            created=decision.created,
            answer=entry.answer,
            result=result,
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
                return await self._same_order(request, holder_of(value), wanted)
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

    async def _same_order(self, request: Request, first: Holder, wanted: ClaimOn) -> Handled:
        """The same purchase again answers what the first did, whatever its key; another one is refused.

        The new key is kept with the answer, so that it cannot be used for anything else.
        """
        if first.digest not in (wanted.digest, *wanted.also) or first.answered_under is None:
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
