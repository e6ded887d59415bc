"""What was answered before: to a repetition the first answer again, whatever the rules would say by now."""

from collections.abc import Sequence

import msgspec

from ledger.actor import Caller
from ledger.entry import Handled, Request, name_of, transaction_id
from ledger.errors import Rejected
from ledger.store.keys import Keyring
from ledger.store.log import Log
from ledger.view import ClaimOn, Holder, View, holder_of


class Earlier(msgspec.Struct, gc=False, frozen=True):
    """What was answered the first time; `order` holds that where the same order came under another key."""

    handled: Handled
    order: Holder | None = None


class Replays:
    """Looks up what a request was answered the first time."""

    def __init__(self, log: Log, keyring: Keyring) -> None:
        self._log = log
        self._keyring = keyring

    async def earlier(self, request: Request, view: View) -> Earlier | None:
        """What the same request was answered before: under its key, or for its order under another."""
        if request.key is not None:
            value = await self._log.claim(request.caller.merchant_id, "idempotency", request.name)
            if value is not None:
                return Earlier(await self._replay(request, holder_of(value)))
        for wanted in view.wanted:
            value = await self._log.claim(request.caller.merchant_id, wanted.kind, wanted.key)
            if value is not None:
                first = holder_of(value)
                return Earlier(await self._same_order(request.caller, first, wanted), first)
        return None

    async def used_keys(self, keys: Sequence[str], caller: Caller) -> dict[str, str]:
        """Those of the idempotency keys that the caller has used, each with the digest of what it was used for."""
        names = {name_of(caller, key): key for key in keys}
        used = await self._log.claims(caller.merchant_id, "idempotency", list(names))
        return {names[name]: holder_of(value).digest for name, value in used.items()}

    async def _replay(self, request: Request, holder: Holder) -> Handled:
        """The first answer, byte for byte; `idempotency_key_reused` if that was to another body."""
        if holder.digest != request.digest:
            raise Rejected("idempotency_key_reused")
        name = request.name
        if holder.answered_under is not None:
            name = holder.answered_under
            value = await self._log.claim(request.caller.merchant_id, "idempotency", name)
            assert value is not None, "an answer is kept for good"
            holder = holder_of(value)
        return await self._first_answer(holder, name)

    async def _first_answer(self, holder: Holder, name: str) -> Handled:
        answer = None
        if holder.answer is not None:
            key = self._keyring.master
            if holder.subject is not None:
                owner = await self._log.subject_key(holder.subject)
                if owner is None:
                    raise Rejected("card_erased")
                key = owner
            answer = key.open(holder.answer, name.encode())
        position = await self._log.position_of(holder.stream, holder.version)
        return Handled(position=position, created=holder.created, replayed=True, answer=answer)

    async def _same_order(self, caller: Caller, first: Holder, wanted: ClaimOn) -> Handled:
        """The same purchase again answers what the first did, whatever its key; another one is refused."""
        if first.digest not in (wanted.digest, *wanted.also) or first.answered_under is None:
            raise Rejected("order_reference_used", transaction_id=transaction_id(first.stream, first.version))
        stored = await self._log.claim(caller.merchant_id, "idempotency", first.answered_under)
        assert stored is not None, "an answer is kept for good"
        return await self._first_answer(holder_of(stored), first.answered_under)
