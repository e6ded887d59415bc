"""Histories of a shop that nobody thought of, sent through the door: every command, by tills and managers."""

import math
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Any
from uuid import UUID, uuid4

import msgspec

from ledger import card
from ledger.actor import OPERATOR, Caller, Role
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
    OpenStore,
    StaffEntry,
    VerifyPin,
    WhichCard,
)
from ledger.entry import Handled
from ledger.errors import Rejected
from ledger.merchant import ChangeSettings
from ledger.program import ChangeProgram
from ledger.staff_pin import DeactivateStaffPin, StaffRole, UnlockStaffPin
from ledger.terminal import UnlockTerminal
from tests.ledger.histories import ACTS, CARD_NUMBERS, LATER, PROGRAMS, REVERSIBLE, Merge, Rule, Undo, fields, step_of
from tests.shop import PIN, Shop

CORRECTIONS = (card.Adjust, card.Suspend, card.Reactivate, card.Close, card.ExpirePoints)
"""What a manager does, or an operator's job."""

SELDOM = [card.Suspend(), card.Reactivate(), card.ExpirePoints(), Merge(1)]
PERSON: dict[str, Any] = {
    "name": "Zoë Müller",
    "email": "zoe@shop.example",
    "phone": "+352 621 000 000",
    "locale": "de",
}


@dataclass
class Trade:
    """A shop, what can be done to its cards, and what can be undone."""

    shop: Shop
    chance: Random
    tokyo: UUID
    spare_pin: UUID
    cards: list[UUID] = field(default_factory=list)
    transactions: list[tuple[UUID, int]] = field(default_factory=list)

    async def steps(self, count: int) -> None:
        """So many things are asked, one after the other; some are refused."""
        for _ in range(count):
            await self.step()

    async def begin_anew(self) -> None:
        """Goes on with new cards: the others are merged and closed in the end."""
        self.cards = []
        for number in range(3):
            made = await self.shop.enrol(customer_id=f"Customer {number} {self.chance.random()}", **PERSON)
            self.cards.append(made.id)
            self.shop.clock.time += timedelta(seconds=1)

    async def step(self) -> None:
        """Anything, of any card, some time later."""
        places: list[list[Any]] = [[*ACTS, *SELDOM * 3, *map(Rule, range(3)), *OTHERS], CARD_NUMBERS, LATER]
        number = self.chance.randrange(math.prod(map(len, places)))
        act, which, later, _ = step_of(number, [*places, [None]])
        self.shop.clock.time += later
        with suppress(Rejected):
            await self._asked(act, which)

    async def _asked(self, act: Any, which: int) -> None:
        here = WhichCard(card_id=self.cards[which % len(self.cards)])
        staff = StaffEntry(staff_pin=PIN if self.chance.random() < 0.97 else "9999")
        match act:
            case Other():
                await self._send(self._other(act.name, staff))
            case Rule(number):
                await self._send(OnProgram(ChangeProgram(fields(PROGRAMS[number * 19]))))
            case Merge(number):
                await self._send(MergeCards(here, self.cards[number % len(self.cards)]))
            case Undo(number, tenths, allow) if self.transactions:
                stream, version = self.transactions[-1 - number % len(self.transactions)]
                cents = tenths * 100 if tenths is not None else None
                command = card.Reverse(
                    card=stream, version=version, purchase_amount_cents=cents, allow_negative_balance=allow
                )
                await self._send(OnCard(which=WhichCard(card_id=stream), staff=staff, command=command))
            case card.ImportBalance(points=points, stamps=stamps):
                await self._send(
                    ImportCard(source="paper", customer_id=f"P-{uuid4()}", points=points, stamps=stamps, **PERSON)
                )
            case card.EarnPoints(cents):
                order = str(uuid4()) if self.chance.random() < 0.5 else None
                await self._send(OnCard(which=here, staff=staff, command=card.EarnPoints(cents, order)))
            case list() | Undo():
                pass
            case command:
                await self._send(OnCard(which=here, staff=staff, command=command))

    def _other(self, name: str, staff: StaffEntry) -> Command:
        """What is done beside the cards."""
        staff_id, number = self.shop.staff_id, self.chance.randrange(10_000)
        match name:
            case "enrol":
                return EnrolCard(customer_id=f"C-{number}", **PERSON)
            case "create pin":
                return CreatePin(name=f"Kim {number}", pin=f"{number:04}", role=StaffRole.STAFF)
            case "deactivate pin":
                return OnPin(self.spare_pin, DeactivateStaffPin())
            case "unlock pin":
                return OnPin(staff_id, UnlockStaffPin())
            case "change pin":
                return ChangePin(staff_id=staff_id, name=f"Alex {number}")
            case "verify pin":
                return VerifyPin(StaffEntry(staff_id=staff_id, staff_pin=staff.staff_pin))
            case "settings":
                return OnMerchant(ChangeSettings({"require_order_reference": number < 2_000}))
            case "unlock till":
                return OnTerminal(self.shop.till.id, UnlockTerminal())
            case _:
                return OpenAccount(email=f"{uuid4()}@shop.example", password="correct horse battery", role=Role.MANAGER)

    async def _send(self, command: Command) -> None:
        """Sends it as whoever may, and notes what can be undone."""
        by_till = isinstance(command, EnrolCard | VerifyPin) or (
            isinstance(command, OnCard) and not isinstance(command.command, CORRECTIONS)
        )
        caller = self.shop.till if by_till else self.shop.merchant
        if isinstance(command, ImportCard):
            caller = Caller(role=Role.OPERATOR, id=OPERATOR, merchant_id=caller.merchant_id, store_id=self.tokyo)
        if isinstance(command, OnCard | VerifyPin) and self.chance.random() < 0.3:
            caller = msgspec.structs.replace(self.shop.merchant, role=Role.MANAGER, store_id=self.tokyo)
        self._note(await self.shop.ledger.handle(command, caller, key=str(uuid4())))

    def _note(self, handled: Handled) -> None:
        if handled.result is None:
            return
        main = handled.result.main
        self.transactions += [
            (main.stream, version) for version, event in handled.result.events if isinstance(event, REVERSIBLE)
        ]


class Other(msgspec.Struct, frozen=True):
    """Something that happens to no card that is there."""

    name: str


OTHERS = [
    Other(name)
    for name in (
        *("enrol", "create pin", "deactivate pin", "unlock pin", "change pin"),
        *("verify pin", "verify pin", "settings", "unlock till", "account"),
    )
]


async def trade_in(shop: Shop, chance: Random) -> Trade:
    """A shop with a store in another time zone, and a card for each number in the histories."""
    opened = await shop.ledger.handle(
        OpenStore(
            code=f"T{uuid4().hex[:12].upper()}", name="Ginza", time_zone="Asia/Tokyo", currency="JPY", locale="ja"
        ),
        shop.merchant,
    )
    assert opened.result is not None
    tokyo = next(each for each in opened.result.main.state.stores if each != shop.store_id)
    spare_pin = f"{chance.randrange(10**8):08}"
    spare = await shop.ledger.handle(CreatePin(name="Sam", pin=spare_pin, role=StaffRole.STAFF), shop.merchant)
    assert spare.result is not None
    trade = Trade(shop, chance, tokyo, spare.result.main.stream)
    await trade.begin_anew()
    return trade
