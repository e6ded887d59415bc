"""Whose PIN was typed: the one place where PINs are looked up, checked, counted and locked."""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from ledger import staff_pin, terminal
from ledger.actor import Role
from ledger.attempts import Attempts, LockRule, rfc3339
from ledger.commands import StaffEntry
from ledger.errors import Rejected
from ledger.merchant import MerchantSettings, StaffPinPolicy
from ledger.secrecy import Secrecy
from ledger.staff_pin import StaffPin, StaffRole
from ledger.store.names import STAFF_PIN, TERMINAL
from ledger.view import Change, Decision, View


class Member(msgspec.Struct, frozen=True):
    """The staff member behind a command, if any, and the events that their PIN entry itself made."""

    pin: StaffPin | None
    changes: Sequence[Change] = ()


class Identification:
    """Finds the staff member of one command; a check made in one attempt is not paid for again in the next.

    With `asks` false nobody has to say who they are: where it is only to be seen what would happen.
    """

    def __init__(self, secrecy: Secrecy, *, asks: bool = True) -> None:
        self._secrecy = secrecy
        self._asks = asks
        self._wrong: set[tuple[str, str | None]] = set()

    async def member(
        self, view: View, entry: StaffEntry, settings: MerchantSettings, store_id: UUID | None, *, wanted: bool
    ) -> Member | Decision:
        """The member, nobody where none is needed, or a decision to count a wrong PIN and refuse.

        `wanted` is whether the program asks for a PIN where the merchant leaves it to the program.
        """
        policy = settings.staff_pin_policy
        if policy is StaffPinPolicy.DISABLED or not self._asks:
            return Member(None)
        if entry.staff_pin is None:
            required = policy is StaffPinPolicy.REQUIRED or wanted
            if entry.staff_id is not None or (required and view.caller.role is Role.TERMINAL):
                raise Rejected("staff_pin_required")
            return Member(None)
        return await self.verified(view, entry.staff_id, entry.staff_pin, settings.lock_rule, store_id)

    async def manager(self, view: View, entry: StaffEntry, rule: LockRule, store_id: UUID | None) -> Member | Decision:
        """The manager whose PIN was typed at a till; with an account it is the account that counts."""
        if view.caller.role is not Role.TERMINAL or not self._asks:
            return Member(None)
        if entry.staff_pin is None:
            raise Rejected("manager_pin_required")
        found = await self.verified(view, entry.staff_id, entry.staff_pin, rule, store_id)
        if isinstance(found, Decision) or (found.pin is not None and found.pin.role is StaffRole.MANAGER):
            return found
        return refusing(found, Rejected("manager_pin_required"))

    async def verified(
        self, view: View, staff_id: UUID | None, pin: str, rule: LockRule, store_id: UUID | None
    ) -> Member | Decision:
        """The member that the PIN belongs to, or a decision to count it as wrong and refuse.

        `store_id` is where they stand; a PIN of another store is refused.
        """
        found = await self._owner(view, staff_id, pin, rule)
        if isinstance(found, Decision) or found.pin is None or found.pin.store_id in (None, store_id):
            return found
        return refusing(found, Rejected("staff_pin_other_store"))

    async def _owner(self, view: View, staff_id: UUID | None, pin: str, rule: LockRule) -> Member | Decision:
        fingerprint = self._secrecy.fingerprint(view.caller.merchant_id, pin)
        if staff_id is not None:
            named = await view.find(STAFF_PIN, staff_id)
            if named is not None and named.state.active:
                return await self._named(view, named.state, fingerprint, rule)
        return await self._unnamed(view, fingerprint if staff_id is None else None, rule)

    async def _named(self, view: View, pin: StaffPin, fingerprint: str, rule: LockRule) -> Member | Decision:
        pin.attempts.refuse_if_locked(view.clock_now)
        if await self._matches(fingerprint, pin.pin_hash):
            return self._accepted(pin, ())
        events = staff_pin.decide(pin, staff_pin.CountWrongPin(view.clock_now, rule))
        change = Change(aggregate=STAFF_PIN, stream=pin.id, events=events)
        return Decision(changes=[change], refusal=wrong_pin(events[0], rule))

    async def _unnamed(self, view: View, fingerprint: str | None, rule: LockRule) -> Member | Decision:
        till = await view.find(TERMINAL, view.caller.id) if view.caller.role is Role.TERMINAL else None
        if till is not None:
            till.state.attempts.refuse_if_locked(view.clock_now)
        pin = await self._candidate(view, fingerprint) if fingerprint is not None else None
        # A locked PIN given alone counts as nobody's, so that nobody learns by it whether it was right.
        if pin is not None and pin.attempts.is_locked(view.clock_now):
            pin = None
        if await self._matches(fingerprint or "", pin.pin_hash if pin else None) and pin is not None:
            forgotten = terminal.decide(till.state, terminal.ForgetWrongPins()) if till else []
            changes = [Change(aggregate=TERMINAL, stream=view.caller.id, events=forgotten)] if forgotten else []
            return self._accepted(pin, changes)
        if till is None:
            raise Rejected("pin_invalid")
        events = terminal.decide(till.state, terminal.CountWrongPin(view.clock_now, rule))
        change = Change(aggregate=TERMINAL, stream=till.stream, events=events)
        return Decision(changes=[change], refusal=wrong_pin(events[0], rule))

    async def _candidate(self, view: View, fingerprint: str) -> StaffPin | None:
        for remembered in (True, False):
            holder = await view.claimed_by("pin", fingerprint, remembered=remembered)
            found = await view.find(STAFF_PIN, holder.stream) if holder else None
            if found is not None and found.state.active and found.state.fingerprint == fingerprint:
                return found.state
        return None

    def _accepted(self, pin: StaffPin, changes: Sequence[Change]) -> Member:
        forgotten = staff_pin.decide(pin, staff_pin.ForgetWrongPins())
        if forgotten:
            changes = [*changes, Change(aggregate=STAFF_PIN, stream=pin.id, events=forgotten)]
        return Member(pin, changes)

    async def _matches(self, fingerprint: str, pin_hash: str | None) -> bool:
        if (fingerprint, pin_hash) in self._wrong:
            return False
        good = await self._secrecy.matches(fingerprint, pin_hash)
        if not good:
            self._wrong.add((fingerprint, pin_hash))
        return good


def refusing(member: Member, refusal: Rejected) -> Decision:
    """The refusal of somebody whose PIN was right."""
    staff_id = member.pin.id if member.pin else None
    return Decision(changes=member.changes, staff_id=staff_id, refusal=refusal)


def wrong_pin(event: object, rule: LockRule) -> Rejected:
    """The refusal of a wrong PIN, with what is left before the lock, or until when it locked."""
    assert isinstance(event, staff_pin.StaffPinFailed | terminal.TerminalPinFailed), "a wrong PIN is counted"
    attempts = Attempts(failed=event.failed_attempts, locked_until=event.locked_until)
    left = max(0, rule.failed_attempts_max - attempts.failed)
    if attempts.locked_until is None:
        return Rejected("pin_invalid", attempts_left=left)
    return Rejected("pin_invalid", attempts_left=0, locked_until=rfc3339(attempts.locked_until))
