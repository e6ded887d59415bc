"""What commands would come to, decided as the door decides them, with nothing written and nobody asked for a PIN."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from ledger.actor import Caller
from ledger.commands import Command, ImportCard
from ledger.entropy import Clock
from ledger.entry import Answer, Draft, Entry, Request, Result
from ledger.errors import Rejected
from ledger.plans import Planner
from ledger.replays import Replays
from ledger.secrecy import Secrecy
from ledger.staff import Identification
from ledger.store.keys import Keyring
from ledger.store.log import Log
from ledger.store.recorder import Claim
from ledger.view import View


class Foretold(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """What a command would answer, as of a position of the log."""

    position: int
    answer: bytes


def foretold(position: int, answer: bytes | None) -> Foretold:
    """An answer that was rendered, though nothing stands behind it."""
    assert answer is not None, "an answer was asked for"
    return Foretold(position=position, answer=answer)


def claims_of(entry: Entry | Rejected) -> Sequence[Claim]:
    """What an entry would take; a refusal takes nothing."""
    return entry.append.claims if isinstance(entry, Entry) else ()


class Previews:
    """Decides commands on current facts and keeps nothing of it."""

    def __init__(
        self, log: Log, planner: Planner, replays: Replays, keyring: Keyring, secrecy: Secrecy, clock: Clock
    ) -> None:
        self._log = log
        self._planner = planner
        self._replays = replays
        self._keyring = keyring
        self._secrecy = secrecy
        self._clock = clock

    async def foretell(
        self, command: Command, caller: Caller, answer: Answer, *, occurred_at: datetime | None = None
    ) -> Foretold:
        """What the command would answer, decided as `handle` does but for the PIN, with nothing written.

        Raises `Rejected` as the command would. `occurred_at` may lie in the future.
        """
        request = Request(command=command, caller=caller, key=None, digest="", answer=answer, occurred_at=occurred_at)
        view, entry = await self._rehearsed(request, fresh=True)
        earlier = await self._replays.earlier(request, view)
        if earlier is not None:
            return foretold(earlier.handled.position, earlier.handled.answer)
        if isinstance(entry, Rejected):
            raise entry
        return foretold(max(loaded.position for loaded in view.loaded.values()), entry.answer)

    async def rehearse(self, commands: Sequence[ImportCard], caller: Caller) -> list[Result | Rejected]:
        """What `handle` would make of each command if it came alone and without a key, with nothing written.

        As there, each is decided on what is cached, and anew only where the log would not take that; the log is asked
        about all of them at once.
        """
        requests = [
            Request(command=command, caller=caller, key=None, digest="", answer=None, occurred_at=None)
            for command in commands
        ]
        tries = [await self._rehearsed(request, fresh=False) for request in requests]
        guards = {stream: version for view, _ in tries for stream, version in view.guards.items()}
        current = await self._log.is_current(guards)
        taken = await self._taken_of([claim for _, entry in tries for claim in claims_of(entry)])
        again = {
            index: self._rehearsed(request, fresh=True)
            for index, (request, (_, entry)) in enumerate(zip(requests, tries, strict=True))
            if not current or not taken.isdisjoint(claim[:3] for claim in claims_of(entry))
        }
        for index, second in zip(again, await asyncio.gather(*again.values()), strict=True):
            tries[index] = second
        return [entry if isinstance(entry, Rejected) else entry.resulted() for _, entry in tries]

    async def _rehearsed(self, request: Request, *, fresh: bool) -> tuple[View, Entry | Rejected]:
        now = self._clock.now()
        view = View(self._log, request.caller, request.occurred_at or now, now, fresh=fresh)
        try:
            await self._planner.admit(view)
            decision = await self._planner.plan(view, request.command, Identification(self._secrecy, asks=False))
        except Rejected as refusal:
            return view, refusal
        if decision.refusal is not None:
            return view, decision.refusal
        return view, await Draft(request, view, decision, self._keyring).finished()

    async def _taken_of(self, claims: Sequence[Claim]) -> set[tuple[UUID, str, str]]:
        """The names of those claims that are taken."""
        keys: dict[tuple[UUID, str], list[str]] = {}
        for claim in claims:
            keys.setdefault((claim.merchant, claim.kind), []).append(claim.key)
        found = await asyncio.gather(*(self._log.claims(*kind, of_kind) for kind, of_kind in keys.items()))
        return {(*kind, key) for kind, taken in zip(keys, found, strict=True) for key in taken}
