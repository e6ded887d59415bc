"""Many cards with their people: the newest first, those used last, or those that a text finds."""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import msgspec
from psycopg.rows import TupleRow

from ledger.actor import PLATFORM
from ledger.errors import Rejected
from ledger.program import Program
from ledger.store import END_OF_LOG
from ledger.store.codec import decode
from ledger.store.keys import Keyring
from ledger.store.log import Log
from projections.card_search import looked_for
from projections.cards import current_program, decoded, shown
from projections.reading import Reader
from schemas import cards

EPOCH, MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
LAST_MICROSECOND = 250_000_000_000_000_000
"""In the year 9892: after anything that happens."""
WITH_PEOPLE = """
    SELECT c.state, k.subject_id, k.wrapped, card_event.state, customer_event.state, c.id, c.enrolled_position,
        c.last_activity_at
    FROM (
        SELECT cards.*, {term} AS term FROM {found}
            AND (%(status)s::text IS NULL OR cards.status = %(status)s)
            AND (%(store)s::uuid IS NULL OR cards.store_id = %(store)s)
        ORDER BY {order} LIMIT %(limit)s
    ) AS c
    LEFT JOIN subject_keys k ON k.subject_id = c.customer
    LEFT JOIN events card_event ON card_event.originator_id = c.id AND card_event.originator_version = 1
    LEFT JOIN events customer_event
        ON customer_event.originator_id = c.customer AND customer_event.originator_version = 1
    ORDER BY {order_of_all}
"""
NEWEST = WITH_PEOPLE.format(
    found="cards WHERE cards.merchant_id = %(merchant)s AND cards.enrolled_position < %(before)s",
    term="''",
    order="cards.enrolled_position DESC",
    order_of_all="c.enrolled_position DESC",
)
LATELY_USED = WITH_PEOPLE.format(
    found="""
        cards WHERE cards.merchant_id = %(merchant)s
            AND (cards.last_activity_at, cards.enrolled_position) < (%(used_before)s, %(before)s)
    """,
    term="''",
    order="cards.last_activity_at DESC, cards.enrolled_position DESC",
    order_of_all="c.last_activity_at DESC, c.enrolled_position DESC",
)
SEARCHED = WITH_PEOPLE.format(
    found="""
        search_terms t JOIN cards ON cards.customer = t.customer AND cards.merchant_id = t.merchant_id
        WHERE t.merchant_id = %(merchant)s AND t.term >= %(first)s AND t.term < %(last)s
            AND (t.term, t.customer) >= (%(after_term)s, %(after_customer)s)
            AND (t.term, t.customer, cards.enrolled_position)
                > (%(after_term)s, %(after_customer)s, %(after_position)s)
            AND NOT EXISTS (
                SELECT FROM search_terms sooner
                WHERE sooner.customer = t.customer AND sooner.term >= %(first)s AND sooner.term < t.term
            )
            AND NOT EXISTS (
                SELECT FROM unnest(%(others)s::text[]) AS other (word) WHERE NOT EXISTS (
                    SELECT FROM search_terms too
                    WHERE too.customer = t.customer
                        AND too.term >= other.word AND too.term < other.word || chr(1114111)
                )
            )
    """,
    term="t.term",
    order="t.term, t.customer, cards.enrolled_position",
    order_of_all="c.term, c.customer, c.enrolled_position",
)
PLACE_OF = """
    SELECT cards.customer, cards.enrolled_position, (
        SELECT min(term) FROM search_terms t
        WHERE t.customer = cards.customer AND t.term >= %(first)s AND t.term < %(last)s
    )
    FROM cards WHERE cards.id = %(card)s AND cards.merchant_id = %(merchant)s
"""
LAST_CHARACTER = chr(0x10FFFF)


class Wanted(NamedTuple):
    """Which cards, in which order: of a status, of a store, found by a text; the newest first, or those used last."""

    status: str | None = None
    store_id: UUID | None = None
    text: str | None = None
    lately_used: bool = False


async def page(
    reader: Reader, log: Log, merchant: UUID, wanted: Wanted, after: tuple[int, ...] | None, limit: int, now: datetime
) -> tuple[list[cards.ListedCard], tuple[int, ...] | None]:
    """A merchant's cards with their people, from some place on; and from where the next page goes on.

    A place is made of numbers: the log position that a card was enrolled at, or the instant in microseconds that it was
    last used at and that position, or the id of a card among those that a text found.
    """
    asked = {"merchant": merchant, "status": wanted.status, "store": wanted.store_id, "limit": limit + 1}
    if wanted.text is not None:
        query, more = SEARCHED, await searched_from(reader, merchant, looked_for(wanted.text), after)
    elif wanted.lately_used:
        used, before = after or (LAST_MICROSECOND, END_OF_LOG)
        query, more = LATELY_USED, {"used_before": instant(used), "before": before}
    else:
        query, more = NEWEST, {"before": after[0] if after else END_OF_LOG}
    rows = await reader.rows(query, asked | more)
    if not rows:
        return [], None
    program = await current_program(log, merchant)
    items = [listed(row, program, log.keyring, now) for row in rows[:limit]]
    return items, place_of(rows[limit - 1], wanted) if len(rows) > limit else None


async def searched_from(
    reader: Reader, merchant: UUID, words: tuple[str, ...], after: tuple[int, ...] | None
) -> dict[str, object]:
    """Between which terms the longest word is looked for, beside which others, and after which card."""
    longest, *others = words
    between: dict[str, object] = {"first": longest, "last": longest + LAST_CHARACTER, "others": others}
    if after is not None:
        rows = await reader.rows(PLACE_OF, between | {"card": UUID(int=after[0]), "merchant": merchant})
        if not rows or rows[0][2] is None:
            raise Rejected("invalid_cursor")
        customer, position, term = rows[0]
        return between | {"after_term": term, "after_customer": customer, "after_position": position}
    return between | {"after_term": "", "after_customer": PLATFORM, "after_position": 0}


def listed(row: TupleRow, program: Program, keyring: Keyring, now: datetime) -> cards.ListedCard:
    """A row as a card with its person, as far as they were not erased."""
    state, subject, wrapped, card_event, customer_event = row[:5]
    card = decoded(state)
    key = keyring.of(subject, wrapped)
    holder = decode(bytes(card_event), key).event.private if card_event is not None else None
    if holder is not None:
        card = msgspec.structs.replace(card, customer_id=holder.customer_id, qr_code=holder.qr_code)
    person = decode(bytes(customer_event), key).event.private if customer_event is not None else None
    known = cards.Person(person.name, person.email, person.phone, person.locale) if person is not None else None
    return cards.ListedCard(**msgspec.structs.asdict(shown(card, program, now)), person=known)


def place_of(row: TupleRow, wanted: Wanted) -> tuple[int, ...]:
    """The place of a row, to go on from."""
    card, enrolled_position, last_activity_at = row[5:8]
    if wanted.text is not None:
        return (card.int,)
    if wanted.lately_used:
        return (round((last_activity_at - EPOCH) / MICROSECOND), enrolled_position)
    return (enrolled_position,)


def instant(microseconds: int) -> datetime:
    """An instant from the microseconds since 1970."""
    return EPOCH + microseconds * MICROSECOND
