"""A log as years of trade leave it, written past the door: chains of real events, for what is asked of many of them."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg

from ledger import card, customer
from ledger.actor import Actor, Occurrence, Role
from ledger.card_plans import luhn_digit
from ledger.entropy import SystemClock
from ledger.lots import LotName, LotPart
from ledger.store.codec import NO_PREVIOUS_HASH, encode, hash_of
from ledger.store.keys import SubjectKey
from ledger.view import Holder, value_of
from tests.shop import Shop, ledger_on, open_shop

BEGINNING = datetime(2024, 1, 2, 8, 0, tzinfo=UTC)
EARNED, SPENT = 250, 200
TYPES = ["int8", "uuid", "int8", "text", "bytea", "uuid", "uuid"]
FIRST_NAMES = ("Anna", "Luc", "Marie", "Tom", "Léa", "Jan", "Sophie", "Paul", "Emma", "Noah")
LAST_NAMES = ("Weber", "Muller", "Schmit", "Klein", "Hoffmann", "Thill", "Wagner", "Reuter", "Kieffer", "Becker")


def fill(database_url: str, events: int, cards: int, **secrets: bytes) -> Shop:
    """Writes about so many events for so many cards of one new shop.

    The cards are enrolled first; then, a visit each in turn, they earn, are stamped, and spend now and then.
    """
    return asyncio.run(filled(database_url, events, cards, **secrets))


async def filled(database_url: str, events: int, cards: int, **secrets: bytes) -> Shop:
    """The same within an event loop."""
    ledger = ledger_on(database_url, SystemClock(), **secrets)
    await ledger.log.open()
    shop = await open_shop(ledger, ledger.clock)
    await ledger.log.close()
    ledger.secrecy.close()
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        cursor = await connection.execute("SELECT max(notification_id) FROM events")
        (head,) = await cursor.fetchone() or (0,)
        history = History(shop, cards)
        async with connection.cursor().copy("COPY events FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(TYPES)
            for position, row in enumerate(history.rows(events), head + 1):
                await copy.write_row((position, *row))
        async with connection.cursor().copy("COPY claims FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(["uuid", "text", "text", "bytea"])
            for claim in history.claims():
                await copy.write_row(claim)
        async with connection.cursor().copy("COPY subject_keys FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(["uuid", "uuid", "bytea"])
            for subject, wrapped in history.subjects:
                await copy.write_row((subject, shop.merchant.merchant_id, wrapped))
        await connection.commit()
        await connection.set_autocommit(True)
        await connection.execute("ANALYZE")
    return shop


class History:
    """The events of one merchant's cards, chained as the door chains them."""

    def __init__(self, shop: Shop, cards: int) -> None:
        self._merchant = shop.merchant.merchant_id
        self._store = shop.till.store_id
        self._actor = Actor(role=Role.TERMINAL, id=shop.till.id, store_id=self._store, staff_id=shop.staff_id)
        self._keyring = shop.ledger.log.keyring
        self._secrecy = shop.ledger.secrecy
        self._cards = [TradedCard(number) for number in range(cards)]
        self.subjects: list[tuple[UUID, bytes]] = []

    def rows(self, count: int) -> Iterator[tuple[Any, ...]]:
        """Rows of the log, without their positions."""
        made = 0
        for each in self._cards:
            for row in self._enrolled(each):
                made += 1
                yield row
        visit = 0
        while made < count:
            visit += 1
            for each in self._cards:
                when = BEGINNING + timedelta(hours=20 * visit, minutes=each.number % 600)
                for event in each.visit(visit):
                    made += 1
                    yield self._row(each, event, when)
                if made >= count:
                    return

    def claims(self) -> Iterator[tuple[UUID, str, str, bytes]]:
        """The names of the cards, and who has one."""
        for each in self._cards:
            value = value_of(Holder(stream=each.id, version=1))
            yield self._merchant, "card_number", each.card_number, value
            for kind, name in (("qr_code", each.id.hex), ("customer", each.reference)):
                yield self._merchant, kind, self._secrecy.blind(kind, self._merchant, name), value

    def _enrolled(self, each: "TradedCard") -> Iterator[tuple[Any, ...]]:
        key, wrapped = self._keyring.create(each.customer)
        self.subjects.append((each.customer, wrapped))
        person = customer.Person(
            customer_id=each.reference,
            name=f"{FIRST_NAMES[each.number % 10]} {LAST_NAMES[each.number // 10 % 10]}",
            email=f"c{each.number}@mail.example",
        )
        at = self._at(each.customer, 1, BEGINNING)
        topic, stored = encode(customer.CustomerRegistered(person), at, NO_PREVIOUS_HASH, key, None)
        yield each.customer, 1, topic, stored, self._merchant, each.customer
        holder = card.CardHolder(customer_id=each.reference, qr_code=each.id.hex)
        enrolled = card.CardEnrolled(
            customer=each.customer,
            card_number=each.card_number,
            store_id=self._store,
            program_version=1,
            stamp_count=0,
            points_balance=0,
            private=holder,
        )
        yield self._row(each, enrolled, BEGINNING, key)

    def _row(self, each: "TradedCard", event: Any, when: datetime, key: SubjectKey | None = None) -> tuple[Any, ...]:
        each.version += 1
        at = self._at(each.id, each.version, when)
        topic, stored = encode(event, at, each.last_hash, key, None)
        each.last_hash = hash_of(stored)
        return each.id, each.version, topic, stored, self._merchant, each.customer

    def _at(self, stream: UUID, version: int, when: datetime) -> Occurrence:
        return Occurrence(
            stream=stream,
            version=version,
            merchant_id=self._merchant,
            occurred_at=when,
            recorded_at=when,
            actor=self._actor,
        )


class TradedCard:
    """A card on its way through the years."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.reference = f"C-{number}"
        body = f"{number:011}"
        self.card_number = body + luhn_digit(body)
        self.id, self.customer = uuid4(), uuid4()
        self.version = 0
        self.last_hash = NO_PREVIOUS_HASH
        self.points, self.stamps = 0, 0
        self.lot: int | None = None

    def visit(self, number: int) -> Iterator[Any]:
        """What happens at the till: a purchase and a stamp; every fourth time a reward instead, for points."""
        if number % 4 == 0 and self.points >= SPENT and self.lot is not None:
            self.points -= SPENT
            yield card.PointsRedeemed(
                points=SPENT,
                reward_id="coffee",
                reward_name="Coffee",
                lots=(LotPart(self.lot, SPENT),),
                stamp_count=self.stamps,
                points_balance=self.points,
                program_version=1,
            )
            return
        self.points += EARNED
        joins = LotName(self.lot) if self.lot is not None else None
        self.lot = self.lot or self.version + 1
        yield card.PointsEarned(
            points=EARNED,
            purchase_amount_cents=EARNED * 10,
            order_reference=f"O-{self.number}-{number}",
            joins=joins,
            stamp_count=self.stamps,
            points_balance=self.points,
            program_version=1,
        )
        self.stamps += 1
        yield card.StampAdded(
            stamps=1,
            day=(BEGINNING + timedelta(hours=20 * number)).date(),
            stamps_today=1,
            reward_earned=self.stamps % 10 == 0,
            stamp_count=self.stamps,
            points_balance=self.points,
            program_version=1,
        )
