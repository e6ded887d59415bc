"""Merchants with their stores, settings and tills as admins see them; how each of them is now is read from the log."""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from ledger.merchant import Merchant
from ledger.store.log import Log
from ledger.store.names import MERCHANT, TERMINAL, TOPICS
from ledger.terminal import Terminal, TerminalRegistered
from projections.reading import Reader
from schemas import admin

MERCHANTS = "SELECT position, id FROM merchants WHERE position > %(after)s ORDER BY position LIMIT %(limit)s"
PROGRAMS_OF = "SELECT merchant_id, id FROM programs WHERE merchant_id = ANY(%(merchants)s)"
MERCHANT_OF_STORE = "SELECT merchant_id FROM stores WHERE id = %(store)s"
TERMINALS_AT_ONCE = 200


async def merchants(reader: Reader, log: Log, after: int, limit: int) -> tuple[list[admin.Merchant], int | None]:
    """All merchants that were created after a position, oldest first; and from where the next page goes on."""
    rows = await reader.rows(MERCHANTS, {"after": after, "limit": limit + 1})
    items = await merchants_shown(reader, log, [merchant for _, merchant in rows[:limit]])
    return items, rows[limit - 1][0] if len(rows) > limit else None


async def merchants_shown(reader: Reader, log: Log, asked: Sequence[UUID]) -> list[admin.Merchant]:
    """Those of some merchants that there are, in the same order."""
    tenants = {each.stream: each.state for each in await log.load_many(MERCHANT, asked)}
    theirs: dict[UUID, UUID] = dict(await reader.rows(PROGRAMS_OF, {"merchants": list(asked)}))
    return [
        admin.Merchant(
            id=merchant,
            name=tenants[merchant].name,
            locale=tenants[merchant].locale,
            store_codes=codes(tenants[merchant]),
            program_id=theirs.get(merchant),
        )
        for merchant in asked
        if merchant in tenants
    ]


def codes(merchant: Merchant) -> list[str]:
    """The codes of a merchant's stores, in the order that these were opened in."""
    return [store.code for store in merchant.stores.values()]


async def merchant_of_store(reader: Reader, store: UUID) -> UUID | None:
    """Whose store it is."""
    rows = await reader.rows(MERCHANT_OF_STORE, {"store": store})
    return rows[0][0] if rows else None


def settings(merchant: Merchant) -> admin.MerchantSettings:
    """What admins control."""
    return msgspec.convert(msgspec.to_builtins(merchant.settings), admin.MerchantSettings)


def stores(merchant: Merchant, after: int, limit: int) -> tuple[list[admin.Store], int | None]:
    """A merchant's stores after so many of them, in the order that they were opened in; and where the next page is."""
    found = list(merchant.stores.values())
    items = [
        admin.Store(merchant_id=merchant.id, **msgspec.structs.asdict(store)) for store in found[after : after + limit]
    ]
    return items, after + limit if len(found) > after + limit else None


def terminal(till: Terminal) -> admin.Terminal:
    """A till, without anything of its keys."""
    return admin.Terminal(
        id=till.id,
        store_id=till.store_id,
        name=till.name,
        live_keys=len(till.key_digests),
        revoked=till.revoked,
        failed_attempts=till.attempts.failed,
        locked_until=till.attempts.locked_until,
    )


async def terminals(
    log: Log, merchant: UUID, store: UUID, after: int, limit: int
) -> tuple[list[admin.Terminal], int | None]:
    """A store's tills, oldest first, registered after a position; and from where the next page goes on."""
    items: list[admin.Terminal] = []
    reached = after
    while True:
        found = await log.first_events(merchant, TOPICS[TerminalRegistered], after, TERMINALS_AT_ONCE)
        loaded = {each.stream: each.state for each in await log.load_many(TERMINAL, [stream for _, stream in found])}
        for position, stream in found:
            if loaded[stream].store_id != store:
                continue
            if len(items) == limit:
                return items, reached
            items.append(terminal(loaded[stream]))
            reached = position
        if len(found) < TERMINALS_AT_ONCE:
            return items, None
        after = found[-1][0]
