"""Load, evolve, decide, append: the only door through which the ledger is written."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID
from weakref import WeakValueDictionary

import msgspec

from ledger.actor import PLATFORM, Actor, Caller, Occurrence
from ledger.commands import Command, EnrolCard, OnCard, WhichCard, request_text
from ledger.entropy import Clock, Entropy
from ledger.errors import Rejected, Unavailable
from ledger.plans import Planner
from ledger.secrecy import Secrecy
from ledger.staff import Identification
from ledger.store.codec import NO_PREVIOUS_HASH, Origin, encode, hash_of
from ledger.store.keys import Keyring, SubjectKey
from ledger.store.log import Loaded, Log
from ledger.store.recorder import Append, Claim, NewEvent, NewSubject, Outcome, Stale, Taken, Written
from ledger.view import ClaimOn, Decision, Holder, View, holder_of, value_of

ATTEMPTS_MAX = 100


class Result(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """What a command came to: the main stream after it, and the events it made there, with their versions.

    `facts` are what a decision about a card rested on; `secret` is a new terminal key, given this once.
    """

    main: Loaded[Any]
    events: tuple[tuple[int, Any], ...]
    facts: Any
    secret: str | None
    created: bool


class Handled(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """A command that is in the log for good. `answer` is the first one given, byte for byte, where it was replayed."""

    position: int
    created: bool
    replayed: bool = False
    answer: bytes | None = None
    result: Result | None = None


Answer = Callable[[Result], bytes]


class Request(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """One command on its way through the door."""

    command: Command
    caller: Caller
    key: str | None
    digest: str
    answer: Answer | None
    occurred_at: datetime | None

    @property
    def name(self) -> str:
        """The key within its caller: two callers may use the same one."""
        return f"{self.caller.role}:{self.caller.id}:{self.key}"


class Prepared(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """A decision with its events encoded: what the log is asked to take, and what is then so."""

    append: Append
    streams: dict[UUID, Loaded[Any]]
    new_keys: dict[UUID, SubjectKey]
    result: Result | None
    answer: bytes | None


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
        async with self._lock_for(command):
            who = Identification(self.secrecy)
            for attempt in range(ATTEMPTS_MAX):
                handled = await self._attempt(request, who, fresh=attempt > 0)
                if handled is not None:
                    return handled
        raise Unavailable("too many others write to the same streams")

    async def find_card(self, caller: Caller, which: WhichCard) -> UUID:
        """The card of the caller's merchant that is meant; raises `card_not_found`."""
        return await self._planner.card_stream(
            View(self.log, caller, self.clock.now(), self.clock.now(), fresh=True), which
        )

    def _lock_for(self, command: Command) -> asyncio.Lock:
        """Commands for one card take turns within a process: all but the first would find it moved."""
        if isinstance(command, OnCard):
            which = command.which
            name = str(which.card_id or which.card_number or which.qr_code)
        elif isinstance(command, EnrolCard) and command.customer_id is not None:
            name = command.customer_id
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
            earlier = await self._earlier(request, view) if admitted else None
            if earlier is not None:
                return earlier
            if await self.log.is_current(view.guards):
                raise
            self.log.forget(view.guards)
            return None
        if decision.refusal is not None:
            earlier = await self._earlier(request, view)
            if earlier is not None:
                return earlier
        prepared = await self._prepare(request, view, decision, now)
        outcome = await self._append(prepared.append, view)
        match outcome:
            case Written(position):
                return self._written(prepared, decision, position)
            case Stale():
                self.log.forget(prepared.append.guards)
                return None
            case Taken(claim):
                self.log.forget(prepared.append.guards)
                return await self._taken(request, view, claim)

    async def _append(self, append: Append, view: View) -> Outcome:
        if append.events or append.claims:
            try:
                return await self.log.append(append)
            except Unavailable:
                # Nobody knows whether it was written, so what was cached may be overtaken.
                self.log.forget(append.guards)
                raise
        return Written(None) if await self.log.is_current(view.guards) else Stale()

    # ---- before the append ------------------------------------------------------------------------------------

    async def _prepare(self, request: Request, view: View, decision: Decision, now: datetime) -> Prepared:
        merchant = request.caller.merchant_id
        created = {subject: self._keyring.create(subject) for subject in decision.new_subjects}
        new_keys = {subject: key for subject, (key, _) in created.items()}
        actor = Actor(
            role=request.caller.role,
            id=request.caller.id,
            store_id=decision.store_id or request.caller.store_id,
            staff_id=decision.staff_id,
        )
        streams: dict[UUID, Loaded[Any]] = {}
        events: list[NewEvent] = []
        made: list[tuple[int, Any]] = []
        guards = dict(view.guards)
        for change in decision.changes:
            loaded = view.loaded.get(change.stream)
            guards.setdefault(change.stream, 0)
            for event in change.events:
                at = Occurrence(
                    stream=change.stream,
                    version=(loaded.version if loaded else 0) + 1,
                    merchant_id=merchant,
                    occurred_at=view.now,
                    recorded_at=now,
                    actor=actor,
                )
                state = change.aggregate.evolve(loaded.state if loaded else None, event, at)
                subject, key = await self._owner(change.aggregate, state, new_keys)
                origin = origin_of(request.caller) if decision.origin_wanted and key else None
                previous = loaded.last_hash if loaded else NO_PREVIOUS_HASH
                topic, stored = encode(event, at, previous, key, origin)
                loaded = Loaded(
                    aggregate=change.aggregate,
                    stream=change.stream,
                    merchant_id=merchant,
                    state=state,
                    version=at.version,
                    position=0,
                    last_hash=hash_of(stored),
                    snapshot_version=loaded.snapshot_version if loaded else 0,
                )
                events.append(NewEvent(change.stream, at.version, topic, stored, subject))
                if change.stream == decision.main:
                    made.append((at.version, event))
            if loaded is not None and change.events:
                streams[change.stream] = loaded
        result, answer = self._result(request, view, decision, streams, tuple(made))
        append = Append(
            merchant=merchant,
            events=tuple(events),
            guards=guards,
            claims=await self._claims(request, decision, result, answer, new_keys),
            releases=tuple(Claim(merchant, release.kind, release.key) for release in decision.releases),
            subjects=tuple(NewSubject(subject, wrapped) for subject, (_, wrapped) in created.items()),
        )
        return Prepared(append=append, streams=streams, new_keys=new_keys, result=result, answer=answer)

    def _result(
        self,
        request: Request,
        view: View,
        decision: Decision,
        streams: dict[UUID, Loaded[Any]],
        made: tuple[tuple[int, Any], ...],
    ) -> tuple[Result | None, bytes | None]:
        if decision.main is None:
            return None, None
        result = Result(
            main=streams.get(decision.main) or view.loaded[decision.main],
            events=made,
            facts=decision.facts,
            secret=decision.secret,
            created=decision.created,
        )
        return result, request.answer(result) if request.answer else None

    async def _owner(
        self, aggregate: Any, state: Any, new_keys: dict[UUID, SubjectKey]
    ) -> tuple[UUID | None, SubjectKey | None]:
        subject = aggregate.subject(state) if aggregate.subject else None
        if subject is None:
            return None, None
        return subject, new_keys.get(subject) or await self.log.subject_key(subject)

    async def _claims(
        self,
        request: Request,
        decision: Decision,
        result: Result | None,
        answer: bytes | None,
        new_keys: dict[UUID, SubjectKey],
    ) -> tuple[Claim, ...]:
        if decision.refusal is not None or result is None:
            return ()
        merchant = request.caller.merchant_id
        main = result.main
        claims = []
        name = request.name if request.key else None
        for claim in decision.claims:
            under = name if claim.kind == "order" else None
            holder = Holder(stream=main.stream, version=main.version, digest=claim.digest, answered_under=under)
            claims.append(Claim(merchant, claim.kind, claim.key, value_of(holder)))
        if name is not None:
            subject, key = await self._owner(main.aggregate, main.state, new_keys)
            sealed = (key or self._keyring.master).seal(answer, name.encode()) if answer is not None else None
            holder = Holder(
                stream=main.stream,
                version=main.version,
                digest=request.digest,
                subject=subject if key else None,
                answer=sealed,
                created=decision.created,
            )
            claims.append(Claim(merchant, "idempotency", name, value_of(holder)))
        return tuple(claims)

    async def _reserve(self, merchant: UUID, wanted: ClaimOn) -> None:
        """Takes a name that is unique on the platform, before the merchant's own transaction uses it."""
        mine = value_of(Holder(stream=merchant))
        claim = Claim(PLATFORM, wanted.kind, wanted.key, mine)
        outcome = await self.log.append(Append(merchant=PLATFORM, claims=(claim,)))
        if isinstance(outcome, Taken) and await self.log.claim(PLATFORM, wanted.kind, wanted.key) != mine:
            raise Rejected(f"{wanted.kind}_taken", **{wanted.kind: wanted.key})

    # ---- after the append -------------------------------------------------------------------------------------

    def _written(self, prepared: Prepared, decision: Decision, position: int | None) -> Handled:
        events = prepared.append.events
        for subject, key in prepared.new_keys.items():
            self._keyring.remember(subject, key)
        if position is not None:
            last = {event.stream: position - len(events) + 1 + index for index, event in enumerate(events)}
            for stream, loaded in prepared.streams.items():
                self.log.remember(msgspec.structs.replace(loaded, position=last[stream]))
        if decision.refusal is not None:
            raise decision.refusal
        assert prepared.result is not None, "a decision that does not refuse has a main stream"
        return Handled(
            position=position if position is not None else prepared.result.main.position,
            created=decision.created,
            answer=prepared.answer,
            result=prepared.result,
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


def transaction_id(stream: UUID, version: int) -> str:
    """A transaction's public name: where its event stands."""
    return f"{stream}-{version}"


def origin_of(caller: Caller) -> Origin | None:
    """Where the command came from, as far as that is known."""
    if caller.ip_address is None and caller.user_agent is None:
        return None
    return Origin(ip_address=caller.ip_address, user_agent=caller.user_agent)
