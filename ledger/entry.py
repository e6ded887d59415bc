"""A decision made ready for the log: events encoded and chained, the answer rendered, claims given their values."""

from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from ledger.actor import Actor, Caller, Occurrence
from ledger.commands import Command
from ledger.store.codec import NO_PREVIOUS_HASH, Origin, encode, hash_of
from ledger.store.keys import Keyring, SubjectKey
from ledger.store.log import Loaded
from ledger.store.recorder import Append, Claim, NewEvent, NewSubject
from ledger.view import Change, Decision, Holder, View, value_of


class Result(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """What a command came to: the main stream after it, and the events it made there, with their versions.

    `facts` are what a decision about a card rested on; `secret` is a new terminal key, given this once.
    """

    main: Loaded[Any]
    events: tuple[tuple[int, Any], ...]
    facts: Any
    secret: str | None
    created: bool


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
        """The key within its caller."""
        return name_of(self.caller, self.key or "")


def name_of(caller: Caller, key: str) -> str:
    """An idempotency key within its caller: two callers may use the same one."""
    return f"{caller.role}:{caller.id}:{key}"


class Entry(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """A decision with its events encoded: what the log is asked to take, and what is then so."""

    append: Append
    streams: dict[UUID, Loaded[Any]]
    new_keys: dict[UUID, SubjectKey]
    result: Result | None
    answer: bytes | None

    def resulted(self) -> Result:
        """What an entry that refuses nothing comes to."""
        assert self.result is not None, "a decision that does not refuse has a main stream"
        return self.result


class Handled(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """A command that is in the log for good. `answer` is the first one given, byte for byte, where it was replayed."""

    position: int
    created: bool
    replayed: bool = False
    answer: bytes | None = None
    result: Result | None = None


class Draft:
    """An entry while it is being made out of one decision."""

    def __init__(self, request: Request, view: View, decision: Decision, keyring: Keyring) -> None:
        self._request = request
        self._view = view
        self._decision = decision
        self._keyring = keyring
        self._created = {subject: keyring.create(subject) for subject in decision.new_subjects}
        self._events: list[NewEvent] = []
        self._streams: dict[UUID, Loaded[Any]] = {}
        self._main_events: list[tuple[int, Any]] = []
        self._actor = Actor(
            role=request.caller.role,
            id=request.caller.id,
            store_id=decision.store_id or request.caller.store_id,
            staff_id=decision.staff_id,
        )

    async def finished(self) -> Entry:
        """The entry; the answer is rendered from the state after its events."""
        merchant = self._request.caller.merchant_id
        guards = dict(self._view.guards)
        for change in self._decision.changes:
            guards.setdefault(change.stream, 0)
            for event in change.events:
                await self._add(change, event)
        result = self._result()
        answer = self._request.answer(result) if result is not None and self._request.answer else None
        releases = tuple(Claim(merchant, release.kind, release.key) for release in self._decision.releases)
        append = Append(
            merchant=merchant,
            events=tuple(self._events),
            guards=guards,
            claims=await self._claims(result, answer) if result is not None else (),
            releases=releases,
            subjects=tuple(NewSubject(subject, wrapped) for subject, (_, wrapped) in self._created.items()),
        )
        new_keys = {subject: key for subject, (key, _) in self._created.items()}
        return Entry(append=append, streams=self._streams, new_keys=new_keys, result=result, answer=answer)

    async def _add(self, change: Change, event: Any) -> None:
        before = self._streams.get(change.stream) or self._view.loaded.get(change.stream)
        at = Occurrence(
            stream=change.stream,
            version=(before.version if before else 0) + 1,
            merchant_id=self._request.caller.merchant_id,
            occurred_at=change.occurred_at or self._view.now,
            recorded_at=self._view.clock_now,
            actor=self._actor,
        )
        state = change.aggregate.evolve(before.state if before else None, event, at)
        subject, key = await self._owner(change.aggregate, state)
        origin = origin_of(self._request.caller) if self._decision.origin_wanted and key else None
        topic, stored = encode(event, at, before.last_hash if before else NO_PREVIOUS_HASH, key, origin)
        # Within an entry each event is built upon the one before it; only the first upon what is stored.
        built_upon = self._view.loaded.get(change.stream) if change.stream not in self._streams else None
        previous = bytes.fromhex(built_upon.last_hash) if built_upon else None
        self._events.append(NewEvent(change.stream, at.version, topic, stored, subject, previous))
        self._streams[change.stream] = Loaded(
            aggregate=change.aggregate,
            stream=change.stream,
            merchant_id=at.merchant_id,
            state=state,
            version=at.version,
            position=0,
            last_hash=hash_of(stored),
            snapshot_version=before.snapshot_version if before else 0,
        )
        if change.stream == self._decision.main:
            self._main_events.append((at.version, event))

    async def _owner(self, aggregate: Any, state: Any) -> tuple[UUID | None, SubjectKey | None]:
        """Whose personal data a stream holds, and their key if they were not erased."""
        subject = aggregate.subject(state) if aggregate.subject else None
        if subject is None:
            return None, None
        if subject in self._created:
            return subject, self._created[subject][0]
        return subject, await self._view.log.subject_key(subject)

    def _result(self) -> Result | None:
        decision = self._decision
        if decision.main is None:
            return None
        return Result(
            main=self._streams.get(decision.main) or self._view.loaded[decision.main],
            events=tuple(self._main_events),
            facts=decision.facts,
            secret=decision.secret,
            created=decision.created,
        )

    async def _claims(self, result: Result, answer: bytes | None) -> tuple[Claim, ...]:
        """The decision's claims and the command's key; a refusal takes none."""
        if self._decision.refusal is not None:
            return ()
        merchant, main = self._request.caller.merchant_id, result.main
        name = self._request.name if self._request.key else None
        claims = []
        for claim in self._decision.claims:
            under = name if claim.kind == "order" else None
            holder = Holder(stream=main.stream, version=main.version, digest=claim.digest, answered_under=under)
            claims.append(Claim(merchant, claim.kind, claim.key, value_of(holder)))
        if name is not None:
            subject, key = await self._owner(main.aggregate, main.state)
            sealed = (key or self._keyring.master).seal(answer, name.encode()) if answer is not None else None
            holder = Holder(
                stream=main.stream,
                version=main.version,
                digest=self._request.digest,
                subject=subject if key else None,
                answer=sealed,
                created=self._decision.created,
            )
            claims.append(Claim(merchant, "idempotency", name, value_of(holder)))
        return tuple(claims)


def transaction_id(stream: UUID, version: int) -> str:
    """A transaction's public name: where its event stands."""
    return f"{stream}-{version}"


def origin_of(caller: Caller) -> Origin | None:
    """Where the command came from, as far as that is known."""
    if caller.ip_address is None and caller.user_agent is None:
        return None
    return Origin(ip_address=caller.ip_address, user_agent=caller.user_agent)
