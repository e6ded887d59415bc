"""Load, evolve, decide, append: the only door through which the ledger is written."""

import asyncio
from contextlib import AsyncExitStack, suppress
from datetime import datetime
from uuid import UUID
from weakref import WeakValueDictionary

import msgspec

from ledger.actor import PLATFORM, Caller
from ledger.commands import Command, EnrolCard, MergeCards, OnCard, WhichCard, request_text
from ledger.entropy import Clock, Entropy
from ledger.entry import Answer, Draft, Entry, Handled, Request
from ledger.errors import Rejected, Unavailable
from ledger.plans import Planner
from ledger.previews import Previews
from ledger.replays import Replays
from ledger.secrecy import Secrecy, WrongSecret
from ledger.staff import Identification
from ledger.store.keys import Keyring, SealBroken
from ledger.store.log import Log
from ledger.store.names import REFUSALS
from ledger.store.recorder import Append, Claim, Outcome, Stale, Taken, Written
from ledger.view import ClaimOn, Decision, Holder, View, value_of

COMMAND_SECONDS_MAX = 2.8


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
        self.replays = Replays(log, keyring)
        self.previews = Previews(log, self._planner, self.replays, keyring, secrecy, clock)
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

    def digest(self, command: Command, caller: Caller) -> str:
        """What tells a repetition of a command from another command under its key."""
        return self.secrecy.blind("request", caller.merchant_id, request_text(command))

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
            return await self._refused(request, view, decision)
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

    async def _refused(self, request: Request, view: View, decision: Decision) -> Handled | None:
        """Writes what a refusal leaves behind and refuses; None means that something had moved.

        Others who are refused at the same card move nothing that this refusal rests on, only the end of the record:
        that alone is read anew, or whoever reads the most would never come to write.
        """
        if not await self._is_current(view):
            return None
        earlier = await self._earlier(request, view)
        if earlier is not None:
            return earlier
        facts = dict(view.guards)
        record = next((change.stream for change in decision.changes if change.aggregate is REFUSALS), None)
        if record is not None:
            await view.find(REFUSALS, record)
        while True:
            entry = await Draft(request, view, decision, self._keyring).finished()
            outcome = await self._append(entry.append, view)
            if isinstance(outcome, Written):
                return self._written(entry, decision, outcome.position)
            overtaken = record is not None and await view.moved(REFUSALS, record)
            if not overtaken or not await self.log.is_current(facts):
                self.log.forget(entry.append.guards)
                return None

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
        result = entry.resulted()
        return Handled(
            position=position if position is not None else result.main.position,
            created=decision.created,
            answer=entry.answer,
            result=result,
        )

    async def _earlier(self, request: Request, view: View) -> Handled | None:
        """What the same request was answered before.

        Where it was found by its order, its new key is kept with that answer, and cannot be used for anything else.
        """
        earlier = await self.replays.earlier(request, view)
        if earlier is None:
            return None
        if earlier.order is not None and request.key is not None:
            pointer = value_of(msgspec.structs.replace(earlier.order, digest=request.digest))
            claim = Claim(request.caller.merchant_id, "idempotency", request.name, pointer)
            await self.log.append(Append(merchant=request.caller.merchant_id, claims=(claim,)))
        return earlier.handled

    async def _taken(self, request: Request, view: View, claim: Claim) -> Handled | None:
        """What a later comer is told; None where looking again with fresh eyes settles it."""
        earlier = await self._earlier(request, view)
        if earlier is None and claim.kind == "pin":
            raise Rejected("pin_taken")
        return earlier
