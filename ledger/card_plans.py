"""Which facts a command about a card is decided on, and what is written beside the card's own events."""

from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec

from ledger import card, customer, merchant, program, refusals
from ledger.actor import Role
from ledger.commands import NAMES, CardCommand, EnrolCard, ImportCard, MergeCards, OnCard, WhichCard
from ledger.entropy import CARD_NUMBER_BODY_DIGITS, QR_TOKEN_BYTES, Entropy
from ledger.errors import Rejected
from ledger.secrecy import Secrecy
from ledger.staff import Identification, Member, refusing
from ledger.store.names import CARD, CUSTOMER, MERCHANT, PROGRAM, REFUSALS, topics_of
from ledger.streams import program_stream, refusals_stream
from ledger.view import Change, ClaimOn, Decision, View

AT_A_STORE = (card.AddStamp, card.RedeemStamps, card.EarnPoints, card.RedeemPoints)
"""What happens at a till, in a store whose day and whose PINs count."""
OF_THE_OFFICE = (card.Adjust, card.Suspend, card.Reactivate, card.Close)
"""What a manager does to the very card they look at, and not to another that it was merged into meanwhile."""

IN_THE_SENDERS_WORDS = frozenset({"reward_id"})
"""Facts that only repeat the request: whatever was typed there may be personal, and a record cannot be unwritten."""

BEARING_ON_REVERSALS = (*topics_of(card.TransactionReversed), *topics_of(card.PointsExpired))


class CardPlans:
    """Decides commands about cards."""

    def __init__(self, secrecy: Secrecy, entropy: Entropy) -> None:
        self._secrecy = secrecy
        self._entropy = entropy

    async def on_card(self, view: View, command: OnCard, who: Identification) -> Decision:
        """A rule's command on one card, with whoever is at the till."""
        caller, rule = view.caller, command.command
        tenant = await view.need(MERCHANT, caller.merchant_id, "merchant_not_found")
        rules = await view.need(PROGRAM, program_stream(caller.merchant_id), "program_not_found")
        facts = card_facts(view.now, tenant, rules, caller.store_id, store_needed=isinstance(rule, AT_A_STORE))
        member = await self._identified(view, command, who, tenant, facts)
        decision = member if isinstance(member, Decision) else await self._decided_by(member, view, command, facts)
        if decision.refusal is not None:
            follows = not isinstance(rule, OF_THE_OFFICE)
            named = command.staff.staff_id if command.staff.staff_id in view.loaded else None
            decision = await self._recorded(
                view, decision, NAMES[type(rule)], command.which, facts, follows=follows, named=named
            )
        return msgspec.structs.replace(
            decision, store_id=facts.store_id, origin_wanted=tenant.settings.log_ip_addresses
        )

    async def _identified(
        self, view: View, command: OnCard, who: Identification, tenant: merchant.Merchant, facts: card.Facts
    ) -> Member | Decision:
        """Whoever is at the till, or a decision to refuse them."""
        settings = tenant.settings
        try:
            if isinstance(command.command, card.Reverse) and settings.reversals_need_manager:
                return await who.manager(view, command.staff, settings.lock_rule, facts.store_id)
            wanted = facts.program.rules.require_staff_pin
            return await who.member(view, command.staff, settings, facts.store_id, wanted=wanted)
        except Rejected as refusal:
            return Decision(refusal=refusal)

    async def _decided_by(self, member: Member, view: View, command: OnCard, facts: card.Facts) -> Decision:
        """What the card's rules make of it, with what the PIN entry made beside it, also where they refuse."""
        try:
            decision = await self._decided(view, command, facts)
        except Rejected as refusal:
            return refusing(member, refusal)
        changes = [*member.changes, *decision.changes]
        return msgspec.structs.replace(decision, changes=changes, staff_id=member.pin.id if member.pin else None)

    async def _recorded(
        self,
        view: View,
        decision: Decision,
        name: str,
        which: WhichCard,
        facts: card.Facts,
        *,
        follows: bool,
        named: UUID | None = None,
    ) -> Decision:
        """A refusal with a record of it, on the card that the command reached if there is such a card.

        `name` is the command's; `follows` is whether it goes on to where a card was merged; `named` the staff member
        whose PIN it was said to be.
        """
        refusal = decision.refusal
        assert refusal is not None, "only refusals are recorded"
        try:
            stream = await self.card_stream(view, which)
            reached = await (self._followed(view, stream) if follows else view.need(CARD, stream, "card_not_found"))
        except Rejected:
            if not decision.changes:
                raise refusal from None
            return decision
        record = refusals.RecordRefusal(
            card=reached.id,
            customer=reached.customer,
            command=name,
            code=refusal.code,
            facts={fact: value for fact, value in refusal.facts.items() if fact not in IN_THE_SENDERS_WORDS},
            program_version=facts.program.version,
            named=named,
        )
        recorded = Change(aggregate=REFUSALS, stream=refusals_stream(reached.id), events=refusals.decide(record))
        return msgspec.structs.replace(decision, changes=[*decision.changes, recorded])

    async def _decided(self, view: View, command: OnCard, facts: card.Facts) -> Decision:
        rule = command.command
        stream = await self.card_stream(view, command.which)
        if isinstance(rule, card.Reverse):
            facts = msgspec.structs.replace(facts, history=await self._history(view, rule, stream))
        if isinstance(rule, OF_THE_OFFICE):
            state = await self._unmerged(view, stream)
        else:
            state = await self._followed(view, stream)
        view.wanted = order_claims(rule, state, facts.store_id)
        events = card.decide(state, rule, facts)
        closes = isinstance(rule, card.Close) and events
        return Decision(
            main=state.id,
            changes=changes_on(state.id, events),
            claims=view.wanted,
            releases=await self._customer_claims(view, state) if closes else (),
            store_id=facts.store_id,
            facts=facts,
        )

    async def _customer_claims(self, view: View, state: card.Card) -> Sequence[ClaimOn]:
        """What keeps the customers of a card, and of those merged into it, from having another."""
        cards = [state] + [await view.need(CARD, each, "card_not_found") for each in state.absorbed]
        references = (each.customer_id for each in cards)
        return [ClaimOn(kind="customer", key=self._blind(view, "customer", each)) for each in references if each]

    async def _history(self, view: View, command: card.Reverse, stream: UUID) -> tuple[card.Past, ...]:
        """The transaction and what a reversal of it rests on, followed from card to card where they were merged."""
        found = await view.find(CARD, stream)
        if found is None or command.card != stream:
            raise Rejected("transaction_not_found")
        past: list[card.Past] = []
        state, first = found.state, command.version
        while True:
            reads = await view.log.events_since(state.id, first, BEARING_ON_REVERSALS)
            past += [
                card.Past(card=state.id, version=read.at.version, occurred_at=read.at.occurred_at, event=read.event)
                for read in reads
            ]
            if not past or past[0].version != command.version:
                raise Rejected("transaction_not_found")
            if state.merged_into is None:
                return tuple(past)
            state, first = await view.need(CARD, state.merged_into, "card_not_found"), 0

    async def card_stream(self, view: View, which: WhichCard) -> UUID:
        """The card that was meant; `card_not_found` for none, and for another merchant's."""
        if which.card_id is not None:
            return which.card_id
        if which.card_number is not None:
            holder = await view.claimed_by("card_number", which.card_number, remembered=True)
        else:
            assert which.qr_code is not None, "exactly one name of a card is given"
            holder = await view.claimed_by("qr_code", self._blind(view, "qr_code", which.qr_code), remembered=True)
        if holder is None:
            raise Rejected("card_not_found")
        return holder.stream

    async def _followed(self, view: View, stream: UUID) -> card.Card:
        """The card, or the one that it was merged into."""
        state = await view.need(CARD, stream, "card_not_found")
        while state.merged_into is not None:
            state = await view.need(CARD, state.merged_into, "card_not_found")
        return state

    async def _unmerged(self, view: View, stream: UUID) -> card.Card:
        """The card, or `card_merged` with where it went."""
        state = await view.need(CARD, stream, "card_not_found")
        if state.merged_into is not None:
            raise Rejected("card_merged", merged_into=str(state.merged_into))
        return state

    async def _card_of(self, view: View, reference: str) -> card.Card | None:
        """The card of the customer with that reference, None where they have none, or none any more."""
        holder = await view.claimed_by("customer", self._blind(view, "customer", reference))
        state = await self._followed(view, holder.stream) if holder is not None else None
        # A card that was closed since the claim was read has set its customer free.
        return state if state is not None and state.status is not card.CardStatus.CLOSED else None

    async def merge(self, view: View, command: MergeCards) -> Decision:
        """Both cards decided in one append: what one gives, the other takes."""
        caller = view.caller
        tenant = await view.need(MERCHANT, caller.merchant_id, "merchant_not_found")
        rules = await view.need(PROGRAM, program_stream(caller.merchant_id), "program_not_found")
        facts = card_facts(view.now, tenant, rules, caller.store_id, store_needed=False)
        try:
            decision = await self._merged(view, command, facts)
        except Rejected as refusal:
            if refusal.code == "card_not_found":
                raise
            decision = Decision(refusal=refusal)
            decision = await self._recorded(view, decision, NAMES[MergeCards], command.which, facts, follows=False)
        return msgspec.structs.replace(
            decision, store_id=facts.store_id, origin_wanted=tenant.settings.log_ip_addresses
        )

    async def _merged(self, view: View, command: MergeCards, facts: card.Facts) -> Decision:
        """What both cards' rules make of a merge."""
        source = await self._unmerged(view, await self.card_stream(view, command.which))
        target = await self._followed(view, command.into)
        giving = card.decide(source, card.MergeInto(target.id), facts)
        taking = card.decide(target, card.Absorb(card.standing(source, facts.program, facts.now)), facts)
        return Decision(
            main=target.id,
            changes=[*changes_on(source.id, giving), *changes_on(target.id, taking)],
            facts=facts,
        )

    async def enrol(self, view: View, command: EnrolCard) -> Decision:
        """A card for a customer, or the open one that they have."""
        caller = view.caller
        tenant = await view.need(MERCHANT, caller.merchant_id, "merchant_not_found")
        if caller.role is Role.CUSTOMER and not tenant.settings.allow_self_enrollment:
            raise Rejected("self_enrollment_not_allowed")
        rules = await view.need(PROGRAM, program_stream(caller.merchant_id), "program_not_found")
        facts = card_facts(view.now, tenant, rules, caller.store_id)
        reference = command.customer_id or self._entropy.new_id().hex
        # A new customer is the rule, so the claim is only looked up once it was found taken.
        looks_up = view.fresh or not rules.rules.active
        known = await self._card_of(view, reference) if looks_up else None
        if known is not None:
            return Decision(main=known.id, facts=facts)
        opened = self._opened(view, person_of(reference, command), facts)
        return msgspec.structs.replace(opened, origin_wanted=tenant.settings.log_ip_addresses)

    async def import_card(self, view: View, command: ImportCard) -> Decision:
        """A customer of another system with what they had there, on a card of theirs or on the one they have."""
        caller = view.caller
        tenant = await view.need(MERCHANT, caller.merchant_id, "merchant_not_found")
        rules = await view.need(PROGRAM, program_stream(caller.merchant_id), "program_not_found")
        facts = card_facts(command.last_activity_at or view.now, tenant, rules, caller.store_id)
        balance = card.ImportBalance(
            source=command.source, points=command.points, stamps=command.stamps, expires_at=command.points_expire_at
        )
        known, names = None, []
        # As with enrolments, most are new; what was found taken is looked at the second time.
        if view.fresh or not rules.rules.active:
            known = await self._card_of(view, command.customer_id)
            names = await self._names_brought(view, command, known)
        if known is not None:
            changes = brought(command, changes_on(known.id, card.decide(known, balance, facts)))
            return Decision(main=known.id, changes=changes, claims=names, store_id=facts.store_id, facts=facts)
        person = person_of(command.customer_id, command)
        opened = self._opened(view, person, facts, command.card_number, command.qr_code, balance)
        return msgspec.structs.replace(opened, changes=brought(command, opened.changes))

    async def _names_brought(self, view: View, command: ImportCard, known: card.Card | None) -> list[ClaimOn]:
        """The old card's number and token as further names of the card that a customer has here already."""
        names = [
            ("card_number", command.card_number),
            ("qr_code", command.qr_code and self._blind(view, "qr_code", command.qr_code)),
        ]
        free = []
        for kind, key in names:
            if key is None:
                continue
            holder = await view.claimed_by(kind, key)
            if holder is None:
                free.append(ClaimOn(kind=kind, key=key))
            elif known is None or (await self._followed(view, holder.stream)).id != known.id:
                raise Rejected(f"{kind}_taken")
        return free

    def _opened(
        self,
        view: View,
        person: customer.Person,
        facts: card.Facts,
        card_number: str | None = None,
        qr_code: str | None = None,
        brings: card.ImportBalance | None = None,
    ) -> Decision:
        """A new customer with a new card, under the names given or made up."""
        owner, stream = self._entropy.new_id(), self._entropy.new_id()
        enrolment = card.Enrol(
            customer=owner,
            customer_id=person.customer_id,
            card_number=card_number or self._card_number(),
            qr_code=qr_code or self._entropy.token(QR_TOKEN_BYTES).hex(),
            brings=brings,
        )
        registered = customer.decide(None, customer.RegisterCustomer(person))
        return Decision(
            main=stream,
            changes=[
                Change(aggregate=CUSTOMER, stream=owner, events=registered),
                *changes_on(stream, card.decide(None, enrolment, facts)),
            ],
            claims=[
                ClaimOn(kind="customer", key=self._blind(view, "customer", person.customer_id)),
                ClaimOn(kind="card_number", key=enrolment.card_number),
                ClaimOn(kind="qr_code", key=self._blind(view, "qr_code", enrolment.qr_code)),
            ],
            new_subjects=[owner],
            store_id=facts.store_id,
            facts=facts,
            created=True,
        )

    def _card_number(self) -> str:
        body = self._entropy.digits(CARD_NUMBER_BODY_DIGITS)
        return body + luhn_digit(body)

    def _blind(self, view: View, kind: str, text: str) -> str:
        return self._secrecy.blind(kind, view.caller.merchant_id, text)


def person_of(reference: str, command: EnrolCard | ImportCard) -> customer.Person:
    """What is told of a customer, under the merchant's reference for them."""
    return customer.Person(
        customer_id=reference, name=command.name, email=command.email, phone=command.phone, locale=command.locale
    )


def changes_on(stream: UUID, events: Sequence[card.Event]) -> list[Change]:
    """A card's events, each at its time: what expired did so when it was due, all else happens now."""
    return [
        Change(
            aggregate=CARD,
            stream=stream,
            events=[event],
            occurred_at=event.expired_at if isinstance(event, card.PointsExpired) else None,
        )
        for event in events
    ]


def brought(command: ImportCard, changes: Sequence[Change]) -> list[Change]:
    """The same as it was in the other system: a customer who joined then, and whose balance, the last change, is of
    their last activity there; what expired has a time of its own."""
    *before, balance = changes
    joined_at = command.enrolled_at or command.last_activity_at
    return [
        *(msgspec.structs.replace(change, occurred_at=change.occurred_at or joined_at) for change in before),
        msgspec.structs.replace(balance, occurred_at=command.last_activity_at),
    ]


def card_facts(
    now: datetime,
    tenant: merchant.Merchant,
    rules: program.Program,
    store_id: UUID | None,
    *,
    store_needed: bool = True,
) -> card.Facts:
    """The facts of a decision about a card in that store, or in the merchant's only one where none is named.

    What is done from an office needs no store; its day is then that of UTC, and nothing depends on it.
    """
    store_id = tenant.only_store(store_id)
    store = tenant.stores.get(store_id) if store_id is not None else None
    if store is None and store_needed:
        raise Rejected("store_required")
    zone = ZoneInfo(store.time_zone) if store is not None else UTC
    day = now.astimezone(zone).date()
    return card.Facts(
        now=now,
        day=day,
        day_ends_at=datetime.combine(day + timedelta(days=1), time(), zone).astimezone(UTC),
        program=rules,
        store_id=store_id,
        allow_cross_store_redemption=tenant.settings.allow_cross_store_redemption,
        require_order_reference=tenant.settings.require_order_reference,
        allow_reversals=tenant.settings.allow_reversals,
    )


def order_claims(command: CardCommand, state: card.Card, store_id: UUID | None) -> list[ClaimOn]:
    """An order reference counts once per store; the digest tells the same purchase from another under its name."""
    if not isinstance(command, card.EarnPoints) or command.order_reference is None:
        return []
    amount = command.purchase_amount_cents
    also = [f"{each}:{amount}" for each in state.absorbed]
    return [
        ClaimOn(kind="order", key=f"{store_id}:{command.order_reference}", digest=f"{state.id}:{amount}", also=also)
    ]


def luhn_digit(body: str) -> str:
    """The check digit of a number: ISO/IEC 7812-1, annex B."""
    total = 0
    for index, digit in enumerate(reversed(body)):
        value = int(digit) * (2 if index % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return str(-total % 10)
