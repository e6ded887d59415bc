"""The log in batches, as read models take it."""

from collections.abc import Iterable
from datetime import UTC, date, datetime, tzinfo
from itertools import takewhile
from uuid import UUID
from zoneinfo import ZoneInfo

from psycopg.rows import TupleRow

from ledger import card, customer, merchant
from ledger.merchant import Merchant
from ledger.store import END_OF_LOG
from ledger.store.codec import decode
from ledger.store.keys import Keyring, SealBroken
from ledger.store.names import CARD, MERCHANT, STORED, UnknownEvent, topics_of
from projections.movements import KINDS, movement
from projections.read_model import Batch, Connection, Told, Untellable

KNOWN = frozenset(topic for event_type in STORED for topic in topics_of(event_type))
OF_MERCHANTS = frozenset(topic for event_type in MERCHANT.events for topic in topics_of(event_type))
OF_CARDS = frozenset(topic for event_type in CARD.events for topic in topics_of(event_type))
PRIVATE = [*topics_of(card.CardEnrolled), *topics_of(customer.CustomerRegistered)]
"""Whose personal part a read model may look at; everything else stays sealed, which is quicker, too."""

NOWHERE = -1
EVENTS_AFTER = """
    SELECT e.notification_id, e.topic, e.state, e.merchant_id, e.subject_id, k.wrapped
    FROM events e LEFT JOIN subject_keys k ON k.subject_id = e.subject_id AND e.topic = ANY(%(private)s)
    WHERE e.notification_id > %(after)s AND e.notification_id <= %(until)s
    ORDER BY e.notification_id LIMIT %(limit)s
"""
MERCHANTS_UNTIL = """
    SELECT state FROM events WHERE originator_id = ANY(%(merchants)s) AND notification_id <= %(until)s
    ORDER BY originator_id, originator_version
"""


class Batches:
    """Reads the log through a connection of its own, and knows at each position what day it is in each store.

    `topics` are what its read models want; other events are passed over. What this release has no name for is not:
    only the release that wrote it can tell what it changes.
    """

    def __init__(self, connection: Connection, keyring: Keyring, topics: Iterable[str]) -> None:
        self._connection = connection
        self._keyring = keyring
        self._topics = frozenset(topics)
        self._merchants: dict[UUID, Merchant] = {}
        self._zones: dict[tuple[int, int], tzinfo] = {}
        self._end = 0

    async def after(self, position: int, limit: int, until: int = END_OF_LOG) -> Batch | None:
        """What comes after a position, a limited number of events; None where nothing does.

        Ends before an event that this release does not know, and raises `UnknownEvent` where nothing else comes. Raises
        `Untellable` where an event cannot be opened with the key that is kept for it.
        """
        asked = {"after": position, "until": until, "limit": limit, "private": PRIVATE}
        cursor = self._connection.cursor(binary=True)
        found = await (await cursor.execute(EVENTS_AFTER.encode(), asked)).fetchall()
        if not found:
            return None
        rows = list(takewhile(lambda row: row[1] in KNOWN, found))
        if not rows:
            raise UnknownEvent(found[0][1])
        if position != self._end:
            self._merchants.clear()
            self._zones.clear()
        # Until all of it was read, what is known of merchants is of no position.
        self._end = NOWHERE
        await self._know({row[3].int: row[3] for row in rows}, position)
        events = [told for row in rows if (told := self._told(row)) is not None]
        self._end = rows[-1][0]
        movements = [
            movement(told.position, told.read, told.day)
            for told in events
            if told.day is not None and type(told.read.event) in KINDS
        ]
        return Batch(position, self._end, events, movements)

    async def _know(self, merchants: dict[int, UUID], position: int) -> None:
        """Has the merchants of a batch as they were before it."""
        unknown = [merchant_id for merchant_id in merchants.values() if merchant_id not in self._merchants]
        if not unknown:
            return
        cursor = self._connection.cursor(binary=True)
        await cursor.execute(MERCHANTS_UNTIL, {"merchants": unknown, "until": position})
        for (stored,) in await cursor.fetchall():
            read = decode(bytes(stored), None)
            known = self._merchants.get(read.at.stream)
            self._merchants[read.at.stream] = merchant.evolve(known, read.event, read.at)

    def _told(self, row: TupleRow) -> Told | None:
        position, topic, stored, merchant_id, subject, wrapped = row
        if topic in OF_MERCHANTS:
            read = decode(bytes(stored), None)
            known = self._merchants.get(merchant_id)
            self._merchants[merchant_id] = merchant.evolve(known, read.event, read.at)
            self._zones.clear()
            return Told(position, read, None) if topic in self._topics else None
        if topic not in self._topics:
            return None
        try:
            read = decode(bytes(stored), self._keyring.of(subject, wrapped))
        except SealBroken as error:
            raise Untellable(
                f"the event {topic} at position {position} does not open with its person's key: every read model stops"
                " before it, until the event or the key is as it was"
            ) from error
        at = read.at
        day = self._day(merchant_id, at.actor.store_id, at.occurred_at) if topic in OF_CARDS else None
        return Told(position, read, day)

    def _day(self, merchant_id: UUID, store_id: UUID | None, occurred_at: datetime) -> date:
        """The date at the store; at the merchant's first one for what happened in none, as when points expire."""
        where = (merchant_id.int, store_id.int if store_id is not None else 0)
        zone = self._zones.get(where)
        if zone is None:
            zone = self._zones[where] = zone_of(self._merchants.get(merchant_id), store_id)
        return occurred_at.astimezone(zone).date()


def zone_of(merchant: Merchant | None, store_id: UUID | None) -> tzinfo:
    """The time zone of a merchant's store, of their first one where none is named, or UTC where there is none."""
    stores = merchant.stores if merchant is not None else {}
    store = stores.get(store_id) if store_id is not None else None
    store = store or next(iter(stores.values()), None)
    return ZoneInfo(store.time_zone) if store is not None else UTC
