"""Staff PINs as managers see them."""

from uuid import UUID

from ledger.staff_pin import StaffPin, StaffPinCreated
from ledger.store.log import Log
from ledger.store.names import STAFF_PIN, TOPICS
from schemas import pins


def shown(pin: StaffPin) -> pins.StaffPin:
    """The PIN as it crosses the wire: everything but the PIN."""
    return pins.StaffPin(
        id=pin.id,
        name=pin.name,
        role=pin.role.value,
        store_id=pin.store_id,
        active=pin.active,
        failed_attempts=pin.attempts.failed,
        locked_until=pin.attempts.locked_until,
    )


async def find(log: Log, merchant: UUID, pin: UUID) -> pins.StaffPin | None:
    """One PIN of a merchant as of now; None for another merchant's as for none."""
    loaded = await log.load(STAFF_PIN, pin, fresh=True)
    return shown(loaded.state) if loaded is not None and loaded.merchant_id == merchant else None


async def page(log: Log, merchant: UUID, after: int, limit: int) -> tuple[list[pins.StaffPin], int | None]:
    """A merchant's PINs, oldest first, created after a position; and from where the next page goes on."""
    found = await log.first_events(merchant, TOPICS[StaffPinCreated], after, limit + 1)
    streams = [stream for _, stream in found[:limit]]
    states = {each.stream: each.state for each in await log.load_many(STAFF_PIN, streams)}
    return [shown(states[stream]) for stream in streams], found[limit - 1][0] if len(found) > limit else None
