"""Which cards were used, on which days, in which store, with whose PIN: counted over the table of transactions."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, NamedTuple
from uuid import UUID

from ledger.actor import PLATFORM
from projections.figures import Active
from projections.reading import Reader

VISITS = """
    FROM transactions t
    WHERE t.merchant_id = m.id AND t.day >= %(from)s AND t.day <= %(to)s AND t.visit
        AND (%(store)s::uuid IS NULL OR t.store_id = %(store)s)
        AND (%(staff)s::uuid IS NULL OR t.staff_id = %(staff)s)
"""
THESE, ALL = "unnest(%(merchants)s::uuid[])", "(SELECT id FROM merchants)"
USED_BY_DAY = """
    SELECT used.day, sum(used.cards)::bigint
    FROM {whose} AS m (id) CROSS JOIN LATERAL (
        SELECT t.day, count(DISTINCT t.card_id) AS cards {visits} GROUP BY t.day
    ) AS used
    GROUP BY used.day
"""
USED = """
    SELECT coalesce(sum(used.cards), 0)::bigint, coalesce(sum(used.returning), 0)::bigint
    FROM {whose} AS m (id) CROSS JOIN LATERAL (
        SELECT count(*) AS cards, count(*) FILTER (WHERE cards.first_visit_day < by_card.last_day) AS returning
        FROM (SELECT t.card_id, max(t.day) AS last_day {visits} GROUP BY t.card_id) AS by_card
        LEFT JOIN cards ON cards.id = by_card.card_id
    ) AS used
"""
USED_HERE = """
    SELECT {counted}
    FROM (
        SELECT t.card_id, max(t.day) AS last_day, bit_or(store.bit) AS stores, bit_or(staff.bit) AS staff
        {visits} GROUP BY t.card_id
    ) AS used
    LEFT JOIN cards ON cards.id = used.card_id
"""
WITH_BITS = """
    FROM unnest(%(merchants)s::uuid[]) AS m (id) JOIN transactions t ON t.merchant_id = m.id
    LEFT JOIN unnest(%(stores)s::uuid[], %(store_bits)s::bigint[]) AS store (id, bit)
        ON store.id = coalesce(t.store_id, %(nobody)s)
    LEFT JOIN unnest(%(staff_ids)s::uuid[], %(staff_bits)s::bigint[]) AS staff (id, bit)
        ON staff.id = coalesce(t.staff_id, %(nobody)s)
"""
USED_BY = f"""
    SELECT used.what, count(*) FROM {THESE} AS m (id) CROSS JOIN LATERAL (
        SELECT t.{{column}} AS what, t.card_id {VISITS} GROUP BY t.{{column}}, t.card_id
    ) AS used
    GROUP BY used.what
"""  # noqa: S608 names of our own
BITS_MAX = 62
USED_OF_EACH = f"""
    SELECT m.id, used.cards FROM {THESE} AS m (id) CROSS JOIN LATERAL (
        SELECT count(DISTINCT t.card_id) AS cards {VISITS}
    ) AS used
"""  # noqa: S608 names of our own


class Wanted(NamedTuple):
    """Which visits: of some days, inclusive, in a store, with a staff member's PIN."""

    first_day: date | None = None
    last_day: date | None = None
    store_id: UUID | None = None
    staff_id: UUID | None = None


@dataclass
class ActiveOfMerchant(Active):
    """How many cards were used, also by store and by staff member; None stands for none."""

    by_store: dict[UUID | None, int] = field(default_factory=dict)
    by_staff: dict[UUID | None, int] = field(default_factory=dict)


def used_when(wanted: Wanted) -> dict[str, Any]:
    """What the queries above are asked with."""
    return {
        "from": wanted.first_day or date.min,
        "to": wanted.last_day or date.max,
        "store": wanted.store_id,
        "staff": wanted.staff_id,
    }


async def active_of(
    reader: Reader, merchant: UUID, wanted: Wanted, stores: Sequence[UUID | None], staff: Sequence[UUID | None]
) -> ActiveOfMerchant:
    """How many of a merchant's cards were used on some days, in a store, with a staff member's PIN.

    `stores` and `staff` are those by whom to count, too; None stands for none. Each count looks at every visit of those
    days, so that two are made at once.
    """
    asked = used_when(wanted) | {"merchants": [merchant]}
    by_day, active = await asyncio.gather(
        reader.rows(USED_BY_DAY.format(whose=THESE, visits=VISITS), asked),
        used_here(reader, asked, stores[:BITS_MAX], staff[:BITS_MAX]),
    )
    active.by_day = dict(by_day)
    if len(stores) > BITS_MAX:
        active.by_store = dict(await reader.rows(USED_BY.format(column="store_id"), asked))
    if len(staff) > BITS_MAX:
        active.by_staff = dict(await reader.rows(USED_BY.format(column="staff_id"), asked))
    return active


async def used_here(
    reader: Reader, asked: dict[str, Any], stores: Sequence[UUID | None], staff: Sequence[UUID | None]
) -> ActiveOfMerchant:
    """Counts cards once, each with a bit for every store and for every staff member that it was used with.

    That takes a third of the time of counting pairs of a card and a store, and of a card and a staff member.
    """
    bits = {
        "store": [1 << number for number in range(len(stores))],
        "staff": [1 << number for number in range(len(staff))],
    }
    counted = [
        "count(*)",
        "count(*) FILTER (WHERE cards.first_visit_day < used.last_day)",
        *(f"count(*) FILTER (WHERE used.stores & {bit} <> 0)" for bit in bits["store"]),
        *(f"count(*) FILTER (WHERE used.staff & {bit} <> 0)" for bit in bits["staff"]),
    ]
    query = USED_HERE.format(counted=", ".join(counted), visits=VISITS.replace("FROM transactions t", WITH_BITS))
    with_bits = {
        "nobody": PLATFORM,
        "stores": [store or PLATFORM for store in stores],
        "store_bits": bits["store"],
        "staff_ids": [member or PLATFORM for member in staff],
        "staff_bits": bits["staff"],
    }
    ((cards, returning, *each),) = await reader.rows(query, asked | with_bits)
    return ActiveOfMerchant(
        cards,
        returning,
        by_store=dict(zip(stores, each[: len(stores)], strict=True)),
        by_staff=dict(zip(staff, each[len(stores) :], strict=True)),
    )


async def active_of_all(reader: Reader, first_day: date | None, last_day: date | None) -> Active:
    """How many cards of all merchants were used on some days."""
    asked = used_when(Wanted(first_day, last_day))
    by_day, used = await asyncio.gather(
        reader.rows(USED_BY_DAY.format(whose=ALL, visits=VISITS), asked),
        reader.rows(USED.format(whose=ALL, visits=VISITS), asked),
    )
    ((cards, returning),) = used
    return Active(cards, returning, dict(by_day))


async def active_of_each(reader: Reader, merchants: Sequence[UUID], first_day: date) -> dict[UUID, int]:
    """How many cards of each of some merchants were used on some day or later."""
    asked = used_when(Wanted(first_day)) | {"merchants": list(merchants)}
    return dict(await reader.rows(USED_OF_EACH, asked))
