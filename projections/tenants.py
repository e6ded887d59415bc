"""Merchants' stores, settings and tills as admins see them, read from the log itself."""

from uuid import UUID

import msgspec

from ledger.merchant import Merchant
from ledger.store.log import Log
from ledger.store.names import TERMINAL, TOPICS
from ledger.terminal import Terminal, TerminalRegistered
from schemas import admin

TERMINALS_AT_ONCE = 200


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
