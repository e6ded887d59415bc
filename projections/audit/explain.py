"""Why a balance is what it is: one line for each transaction that it rests on, down to the lots."""

from collections.abc import Iterable, Sequence
from uuid import UUID

from ledger import card
from ledger.card import Card
from ledger.entry import transaction_id
from ledger.lots import LotName, LotPart
from ledger.program import Rules
from ledger.store import END_OF_LOG
from ledger.store.codec import Read
from ledger.store.log import Log
from ledger.store.names import MERCHANT, topics_of
from ledger.store.records import Place
from projections.audit.balance import chosen, lot_id, lot_shown, program_told, shown
from projections.audit.horizon import Horizon
from projections.audit.lots import Sums
from projections.audit.sentences import other_card, sentence
from projections.movements import KINDS, signed_change
from schemas import audit

MERGES_MAX = 1_000


async def explain(log: Log, current: Card, horizon: Horizon) -> audit.Explanation:
    """The balance of a card within a horizon, line by line; `current` is the card as of now."""
    followed, rules = await program_told(log, current.merchant_id, horizon)
    telling = Telling(current.id, rules, await currencies(log, current.merchant_id))
    async for found in chosen(log, current.id, horizon, unsealed=True):
        # What is named is mostly an earlier event of the same card, whose position is known by then.
        telling.places |= {(read.at.stream, read.at.version): position for position, read in found}
        unknown = {place for _, read in found if (place := referred(read.event)) is not None} - telling.places.keys()
        telling.places |= await log.records.places([*unknown])
        for position, read in found:
            telling.tell(position, read, await merge_position(log, read.event, current.id))
    return telling.told(shown(telling.sums, current, followed, horizon))


class Telling:
    """An explanation while it is being told, event by event."""

    def __init__(self, card_id: UUID, rules: dict[int, Rules], currency_by_store: dict[UUID, str]) -> None:
        self.sums = Sums(card_id)
        self.places: dict[Place, int] = {}
        self._rules = rules
        self._currencies = currency_by_store
        self._lines: list[audit.ExplainedLine] = []
        self._positions: dict[LotName, list[int]] = {}

    def tell(self, position: int, read: Read, other_position: int | None) -> None:
        """Takes one more event; where it is a merge, the other card's part of it stands at that position."""
        parts = self.sums.take(position, read.event, read.at)
        for part in parts:
            known = self._positions.setdefault(part.name, [])
            if position not in known[-1:]:
                known.append(position)
        if type(read.event) in KINDS and not isinstance(read.event, card.CardEnrolled):
            self._lines.append(self._line(position, read, parts, other_position))

    def _line(
        self, position: int, read: Read, parts: Sequence[LotPart], other_position: int | None
    ) -> audit.ExplainedLine:
        event, at = read.event, read.at
        points, stamps = signed_change(event)
        outside_lots = points - sum(part.points for part in parts)
        place = referred(event)
        reversed_position = self.places.get(place) if place is not None else None
        other = other_card(event)
        store_id = at.actor.store_id
        private = getattr(event, "private", None)
        return audit.ExplainedLine(
            positions=[each for each in (position, reversed_position, other_position) if each is not None],
            transaction_id=transaction_id(at.stream, at.version),
            kind=KINDS[type(event)],
            occurred_at=at.occurred_at,
            recorded_at=at.recorded_at,
            program_version=event.program_version,
            text=sentence(
                event,
                self._rules.get(event.program_version),
                self._currencies.get(store_id) if store_id is not None else None,
                outside_lots,
            ),
            reason=private.reason if isinstance(private, card.Reason) else None,
            points=points,
            stamps=stamps,
            points_balance=self.sums.points,
            stamp_count=self.sums.stamps,
            lots=[audit.LotMove(lot=lot, points=change) for lot, change in by_lot(parts, self.sums.card_id)],
            points_outside_lots=outside_lots,
            reverses=audit.ReversedTransaction(transaction_id=transaction_id(*place), position=reversed_position)
            if place is not None
            else None,
            other_card=audit.OtherCard(card_id=other, position=other_position) if other is not None else None,
        )

    def told(self, balance: audit.Balance) -> audit.Explanation:
        """The whole of it, under the balance that it explains."""
        lots = [
            audit.ExplainedLot(**lot_shown(lot, self.sums.card_id), positions=self._positions[lot.name])
            for lot in self.sums.lots
        ]
        return audit.Explanation(balance=balance, lines=self._lines, lots=lots)


def by_lot(parts: Iterable[LotPart], card_id: UUID) -> list[tuple[str, int]]:
    """What came into each lot or went out of it, all parts of one lot together."""
    changes: dict[str, int] = {}
    for part in parts:
        lot = lot_id(part.name, card_id)
        changes[lot] = changes.get(lot, 0) + part.points
    return [*changes.items()]


def referred(event: card.Event) -> Place | None:
    """The transaction that an event reverses."""
    return (event.card, event.version) if isinstance(event, card.TransactionReversed) else None


async def merge_position(log: Log, event: card.Event, card_id: UUID) -> int | None:
    """Where the other card's part of a merge stands; None for what is no merge."""
    match event:
        case card.CardAbsorbed():
            topics = topics_of(card.CardMerged)
        case card.CardMerged():
            topics = topics_of(card.CardAbsorbed)
        case _:
            return None
    other = other_card(event)
    assert other is not None, "a merge is of two cards"
    for position, read in await log.history([other], END_OF_LOG, MERGES_MAX, topics):
        if other_card(read.event) == card_id:
            return position
    return None


async def currencies(log: Log, merchant: UUID) -> dict[UUID, str]:
    """The currency of each of the merchant's stores."""
    tenant = await log.load(MERCHANT, merchant, fresh=True)
    return {store.id: store.currency for store in tenant.state.stores.values()} if tenant is not None else {}
