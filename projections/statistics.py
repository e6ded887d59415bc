"""Figures of a merchant's program by store, staff member and day of the store; and who its active customers are."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from uuid import UUID
from zoneinfo import ZoneInfo

from ledger.actor import PLATFORM
from ledger.merchant import Store
from ledger.store.log import Log
from ledger.store.names import MERCHANT, STAFF_PIN
from projections.figures import (
    COLUMNS,
    NAMES,
    STANDING,
    SUMMED,
    TOPICS,
    Figures,
    Standing,
    add,
    closed_cards,
    figures_of,
    shown,
    summed,
    totals,
    upsert,
)
from projections.read_model import Batch, Connection, Memory, ReadModel
from projections.reading import Reader
from projections.visits import ActiveOfMerchant, Wanted, active_of, used_when
from schemas.statistics import StaffStatistics, Statistics, StoreStatistics

NOBODY = PLATFORM
"""Stands for the store in what happened in none, and for the staff member where nobody was named."""

KEYS = {"merchant_id": "uuid", "day": "date", "store_id": "uuid", "staff_id": "uuid"}
UPSERT = upsert("statistics", KEYS)
UPSERT_TOTALS = upsert("merchant_totals", {"merchant_id": "uuid"})

# ---- the tables ---------------------------------------------------------------------------------------------------


async def apply(batch: Batch, connection: Connection, _memory: Memory) -> None:
    """Adds what moved, by merchant, day, store and staff member."""
    rows = await summed(batch, connection, "closed_cards", key_of)
    of_merchants: dict[int, Figures] = {}
    for (merchant, *_), figures in rows.items():
        of_merchants.setdefault(merchant, Figures()).add(figures)
    await add(connection, UPSERT, ((ids_of(key), figures) for key, figures in rows.items()))
    await add(connection, UPSERT_TOTALS, (((UUID(int=merchant),), each) for merchant, each in of_merchants.items()))


def key_of(merchant: UUID, day: date, store: UUID | None, staff: UUID | None) -> tuple[int, date, int, int]:
    """A key that is compared quickly, of numbers in place of ids."""
    return merchant.int, day, (store or NOBODY).int, (staff or NOBODY).int


def ids_of(key: tuple[int, date, int, int]) -> tuple[UUID, date, UUID, UUID]:
    """The same key as the table has it."""
    merchant, day, store, staff = key
    return UUID(int=merchant), day, UUID(int=store), UUID(int=staff)


MODEL = ReadModel(
    name="statistics",
    version=1,
    tables={
        "statistics": f"""
            CREATE TABLE statistics (
                merchant_id uuid NOT NULL,
                day date NOT NULL,
                store_id uuid NOT NULL,
                staff_id uuid NOT NULL,
                {COLUMNS.strip()},
                PRIMARY KEY (merchant_id, day, store_id, staff_id)
            )""",
        "merchant_totals": f"""
            CREATE TABLE merchant_totals (
                merchant_id uuid PRIMARY KEY,
                {COLUMNS.strip()}
            )""",
        "closed_cards": closed_cards("closed_cards"),
    },
    indexes="",
    topics=TOPICS,
    apply=apply,
)

# ---- queries ------------------------------------------------------------------------------------------------------

OF_MERCHANT = """
    FROM statistics
    WHERE merchant_id = %(merchant)s
        AND (%(store)s::uuid IS NULL OR store_id = %(store)s) AND (%(staff)s::uuid IS NULL OR staff_id = %(staff)s)
"""
BEFORE = f"SELECT {STANDING} {OF_MERCHANT} AND day < %(from)s"
SUMS = f"""
    SELECT day, store_id, staff_id, {SUMMED} {OF_MERCHANT} AND day >= %(from)s AND day <= %(to)s
    GROUP BY GROUPING SETS ((day), (store_id), (staff_id))
"""
TOTALS = f"""
    SELECT merchant_id, {", ".join(NAMES)} FROM merchant_totals WHERE merchant_id = ANY(%(merchants)s)
"""  # noqa: S608 names of our own


async def of_merchant(reader: Reader, log: Log, merchant: UUID, wanted: Wanted, now: datetime) -> Statistics:
    """A merchant's figures of some days, from the first one on and until now where nothing else is said.

    With a store or a staff member wanted, they are of what happened there, or with that PIN, alone.
    """
    loaded = await log.load(MERCHANT, merchant, fresh=True)
    stores = list(loaded.state.stores.values()) if loaded is not None else []
    first, last = wanted.first_day, wanted.last_day or max(latest_day(stores, now), wanted.first_day or date.min)
    asked = used_when(wanted._replace(last_day=last)) | {"merchant": merchant}
    before = Standing(*map(int, (await reader.rows(BEFORE, asked))[0])) if first is not None else Standing()
    days: dict[date, Figures] = {}
    in_stores: dict[UUID | None, Figures] = {}
    by_staff: dict[UUID | None, Figures] = {}
    for day, store_id, staff_id, *sums in await reader.rows(SUMS, asked):
        if day is not None:
            days[day] = figures_of(sums)
        elif store_id is not None:
            in_stores[known(store_id)] = figures_of(sums)
        else:
            by_staff[known(staff_id)] = figures_of(sums)
    active = await active_of(reader, merchant, wanted._replace(last_day=last), list(in_stores), list(by_staff))
    return Statistics(
        from_=first or min(days, default=None),
        to=last,
        by_store=stores_shown(in_stores, active, stores),
        by_staff=await staff_shown(by_staff, active, log),
        **totals(before, days, active),
    )


async def totals_of(reader: Reader, merchants: Sequence[UUID]) -> dict[UUID, Figures]:
    """All that ever happened to each of some merchants' cards; a merchant without cards is not among them."""
    rows = await reader.rows(TOTALS, {"merchants": list(merchants)})
    return {merchant: figures_of(sums) for merchant, *sums in rows}


def latest_day(stores: Sequence[Store], now: datetime) -> date:
    """What day it is now, where it is latest."""
    zones = {ZoneInfo(store.time_zone) for store in stores}
    return max((now.astimezone(zone).date() for zone in zones), default=now.astimezone(UTC).date())


def known(store_or_staff: UUID) -> UUID | None:
    """A store or a staff member, or None where it was none."""
    return store_or_staff if store_or_staff != NOBODY else None


def stores_shown(
    figures: Mapping[UUID | None, Figures], active: ActiveOfMerchant, stores: Sequence[Store]
) -> list[StoreStatistics]:
    """What happened in each store, by its code; what happened in none comes last."""
    codes = {store.id: store.code for store in stores}
    told = [
        StoreStatistics(
            store_code=codes.get(store_id) if store_id else None, **shown(each, active.by_store.get(store_id, 0))
        )
        for store_id, each in figures.items()
    ]
    return sorted(told, key=lambda each: (each.store_code is None, each.store_code or ""))


async def staff_shown(
    figures: Mapping[UUID | None, Figures], active: ActiveOfMerchant, log: Log
) -> list[StaffStatistics]:
    """What was done with each PIN, by the name of its holder; what was done with none comes last."""
    ids = [staff_id for staff_id in figures if staff_id is not None]
    names = {pin.stream: pin.state.name for pin in await log.load_many(STAFF_PIN, ids)} if ids else {}
    told = [
        StaffStatistics(
            staff_id=staff_id,
            staff_name=names.get(staff_id) if staff_id else None,
            **shown(each, active.by_staff.get(staff_id, 0)),
        )
        for staff_id, each in figures.items()
    ]
    return sorted(told, key=lambda each: (each.staff_id is None, each.staff_name or "", str(each.staff_id)))
