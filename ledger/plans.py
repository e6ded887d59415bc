"""Which facts each command is decided on: read them, ask the rules, and say what is to be written.

Whatever a plan reads is guarded: the log takes the plan's events only while none of it has moved.
"""

from typing import assert_never
from uuid import UUID
from zoneinfo import available_timezones

from ledger import account, merchant, program, staff_pin, terminal
from ledger.actor import PLATFORM, Role
from ledger.card_plans import CardPlans
from ledger.commands import (
    ChangePin,
    Command,
    CreatePin,
    EnrolCard,
    ImportCard,
    MergeCards,
    OnCard,
    OnMerchant,
    OnPin,
    OnProgram,
    OnTerminal,
    OpenAccount,
    OpenMerchant,
    OpenStore,
    OpenTerminal,
    RotateKey,
    VerifyPin,
)
from ledger.entropy import Entropy
from ledger.errors import Rejected
from ledger.secrecy import Secrecy, key_digest
from ledger.staff import Identification, Member
from ledger.store.names import ACCOUNT, MERCHANT, PROGRAM, STAFF_PIN, TERMINAL
from ledger.streams import account_stream, program_stream
from ledger.view import Change, ClaimOn, Decision, View

TERMINAL_SECRET_BYTES = 24


class Planner:
    """Decides commands: one plan each, with time in the view and chance from `entropy`."""

    def __init__(self, secrecy: Secrecy, entropy: Entropy) -> None:
        self._secrecy = secrecy
        self._entropy = entropy
        self.cards = CardPlans(secrecy, entropy)

    async def plan(self, view: View, command: Command, who: Identification) -> Decision:
        """What the command makes of the ledger as the view shows it; raises `Rejected` where a rule says no."""
        match command:
            case OnCard():
                return await self.cards.on_card(view, command, who)
            case EnrolCard():
                return await self.cards.enrol(view, command)
            case MergeCards():
                return await self.cards.merge(view, command)
            case ImportCard():
                return await self.cards.import_card(view, command)
            case OnProgram():
                return await self._on_program(view, command)
            case CreatePin():
                return await self._create_pin(view, command)
            case ChangePin():
                return await self._change_pin(view, command)
            case OnPin():
                return await self._on_pin(view, command)
            case VerifyPin():
                return await self._verify_pin(view, command, who)
            case OpenMerchant() | OnMerchant() | OpenStore():
                return await self._on_merchant(view, command)
            case OpenTerminal() | RotateKey() | OnTerminal():
                return await self._on_terminal(view, command)
            case OpenAccount():
                return await self._open_account(view, command)
            case _:
                assert_never(command)

    async def admit(self, view: View) -> None:
        """A till must still be in service, with the very key it came with, when its command is decided."""
        caller = view.caller
        if caller.role is Role.TERMINAL:
            till = await view.find(TERMINAL, caller.id)
            if till is None or caller.key_digest not in till.state.key_digests:
                raise Rejected("invalid_credentials")

    # ---- program --------------------------------------------------------------------------------------------

    async def _on_program(self, view: View, command: OnProgram) -> Decision:
        await view.need(MERCHANT, view.caller.merchant_id, "merchant_not_found")
        stream = program_stream(view.caller.merchant_id)
        found = await view.find(PROGRAM, stream)
        events = program.decide(found.state if found else None, command.command)
        return Decision(
            main=stream,
            changes=[Change(aggregate=PROGRAM, stream=stream, events=events)],
            created=found is None,
        )

    # ---- PINs -----------------------------------------------------------------------------------------------

    async def _create_pin(self, view: View, command: CreatePin) -> Decision:
        tenant = await view.need(MERCHANT, view.caller.merchant_id, "merchant_not_found")
        refuse_unknown_store(tenant, command.store_id)
        stream = self._entropy.new_id()
        fingerprint = self._secrecy.fingerprint(view.caller.merchant_id, command.pin)
        events = staff_pin.decide(
            None,
            staff_pin.CreateStaffPin(
                name=command.name,
                role=command.role,
                store_id=command.store_id,
                fingerprint=fingerprint,
                pin_hash=await self._secrecy.slow_hash(fingerprint),
            ),
        )
        return Decision(
            main=stream,
            changes=[Change(aggregate=STAFF_PIN, stream=stream, events=events)],
            claims=[ClaimOn(kind="pin", key=fingerprint)],
            new_subjects=[stream],
            created=True,
        )

    async def _change_pin(self, view: View, command: ChangePin) -> Decision:
        tenant = await view.need(MERCHANT, view.caller.merchant_id, "merchant_not_found")
        if command.changes_store:
            refuse_unknown_store(tenant, command.store_id)
        pin = await view.need(STAFF_PIN, command.staff_id, "staff_pin_not_found")
        fingerprint = pin.fingerprint
        if command.pin is not None:
            fingerprint = self._secrecy.fingerprint(view.caller.merchant_id, command.pin)
        moved = fingerprint != pin.fingerprint
        events = staff_pin.decide(
            pin,
            staff_pin.ChangeStaffPin(
                name=command.name,
                role=command.role,
                changes_store=command.changes_store,
                store_id=command.store_id,
                fingerprint=fingerprint,
                pin_hash=await self._secrecy.slow_hash(fingerprint) if moved else None,
            ),
        )
        return Decision(
            main=pin.id,
            changes=[Change(aggregate=STAFF_PIN, stream=pin.id, events=events)],
            claims=[ClaimOn(kind="pin", key=fingerprint)] if moved else [],
            releases=[ClaimOn(kind="pin", key=pin.fingerprint)] if moved else [],
        )

    async def _on_pin(self, view: View, command: OnPin) -> Decision:
        pin = await view.need(STAFF_PIN, command.staff_id, "staff_pin_not_found")
        events = staff_pin.decide(pin, command.command)
        ended = bool(events) and isinstance(command.command, staff_pin.DeactivateStaffPin)
        return Decision(
            main=pin.id,
            changes=[Change(aggregate=STAFF_PIN, stream=pin.id, events=events)],
            releases=[ClaimOn(kind="pin", key=pin.fingerprint)] if ended else [],
        )

    async def _verify_pin(self, view: View, command: VerifyPin, who: Identification) -> Decision:
        tenant = await view.need(MERCHANT, view.caller.merchant_id, "merchant_not_found")
        entry = command.staff
        if entry.staff_pin is None:
            raise Rejected("staff_pin_required")
        store_id = tenant.only_store(view.caller.store_id)
        member = await who.verified(view, entry.staff_id, entry.staff_pin, tenant.settings.lock_rule, store_id)
        if isinstance(member, Member):
            assert member.pin is not None, "a verified PIN is somebody's"
            return Decision(main=member.pin.id, changes=member.changes, staff_id=member.pin.id)
        return member

    # ---- merchants, terminals, accounts -----------------------------------------------------------------------

    async def _on_merchant(self, view: View, command: OpenMerchant | OnMerchant | OpenStore) -> Decision:
        stream = view.caller.merchant_id
        found = await view.find(MERCHANT, stream)
        rule: merchant.Command
        match command:
            case OpenMerchant():
                rule = merchant.CreateMerchant(name=command.name, locale=command.locale, settings=command.settings)
            case OnMerchant(rule_):
                rule = rule_
            case OpenStore():
                merchant.refuse_bad_store_code(command.code)
                refuse_unknown_time_zone(command.time_zone)
                rule = merchant.AddStore(
                    merchant.Store(
                        id=self._entropy.new_id(),
                        code=command.code,
                        name=command.name,
                        time_zone=command.time_zone,
                        currency=command.currency,
                        locale=command.locale,
                    )
                )
            case _:
                assert_never(command)
        events = merchant.decide(found.state if found else None, rule)
        return Decision(
            main=stream,
            changes=[Change(aggregate=MERCHANT, stream=stream, events=events)],
            reserves=ClaimOn(kind="store_code", key=command.code) if isinstance(command, OpenStore) else None,
            created=not isinstance(command, OnMerchant),
        )

    async def _on_terminal(self, view: View, command: OpenTerminal | RotateKey | OnTerminal) -> Decision:
        tenant = await view.need(MERCHANT, view.caller.merchant_id, "merchant_not_found")
        secret = self._entropy.token(TERMINAL_SECRET_BYTES).hex()
        rule: terminal.Command
        match command:
            case OpenTerminal():
                refuse_unknown_store(tenant, command.store_id)
                stream = self._entropy.new_id()
                rule = terminal.RegisterTerminal(
                    store_id=command.store_id, name=command.name, key_digest=key_digest(secret)
                )
                till = None
            case RotateKey():
                stream = command.terminal_id
                rule = terminal.RotateTerminalKey(key_digest(secret))
                till = await view.need(TERMINAL, stream, "terminal_not_found")
            case OnTerminal():
                stream = command.terminal_id
                rule = command.command
                till = await view.need(TERMINAL, stream, "terminal_not_found")
            case _:
                assert_never(command)
        return Decision(
            main=stream,
            changes=[Change(aggregate=TERMINAL, stream=stream, events=terminal.decide(till, rule))],
            created=isinstance(command, OpenTerminal),
            secret=None if isinstance(command, OnTerminal) else terminal_key(stream, secret),
        )

    async def _open_account(self, view: View, command: OpenAccount) -> Decision:
        if view.caller.merchant_id != PLATFORM:
            await view.need(MERCHANT, view.caller.merchant_id, "merchant_not_found")
        stream = account_stream(self._secrecy, command.email)
        if await view.log.load(ACCOUNT, stream, fresh=view.fresh) is not None:
            raise Rejected("email_taken")
        rule = account.AddAccount(
            email=command.email,
            password_hash=await self._secrecy.slow_hash(self._secrecy.password_fingerprint(command.password)),
            role=command.role,
        )
        return Decision(
            main=stream,
            changes=[Change(aggregate=ACCOUNT, stream=stream, events=account.decide(None, rule))],
            new_subjects=[stream],
            created=True,
        )


def terminal_key(terminal_id: UUID, secret: str) -> str:
    """A terminal's key as its user holds it; the prefix names the terminal."""
    return f"lt_{terminal_id.hex}_{secret}"


def refuse_unknown_time_zone(name: str) -> None:
    """Raises `invalid_time_zone` for what is no IANA name: a store's day could never be told."""
    if name not in available_timezones():
        raise Rejected("invalid_time_zone", time_zone=name)


def refuse_unknown_store(tenant: merchant.Merchant, store_id: UUID | None) -> None:
    """Raises `store_not_found` for a store that is not the merchant's."""
    if store_id is not None and store_id not in tenant.stores:
        raise Rejected("store_not_found")
