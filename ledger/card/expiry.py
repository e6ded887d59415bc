"""When points end. What is due ends at its own time, whether a nightly run, the next command or nobody notices.

So that a night missed, a run repeated and a run too late leave the same ledger as a punctual one, every command first
takes what was due before it, and every expiry happens at the instant at which it was due.
"""

from datetime import datetime, timedelta

import msgspec

from ledger.card.commands import Facts
from ledger.card.events import PointsExpired
from ledger.card.state import Card
from ledger.lots import Lot, all_parts, without
from ledger.program import ExpiryPeriod, ExpiryPolicy, Program

NOTICE, NO_NOTICE = timedelta(days=1), timedelta(0)


class NextExpiry(msgspec.Struct, gc=False, frozen=True):
    """What the next expiry would take, and when, if nothing happened before it."""

    points: int
    at: datetime


def due_lots(card: Card, program: Program) -> list[tuple[datetime, list[Lot]]]:
    """Which lots end when, soonest first, if nothing happened any more.

    Each period of the program's expiry ends what is due in it. What would have been due before, and did not end by the
    rules of that time, ends with the period's beginning; where that was a change, a day after it, so that a slip can be
    put right before anybody loses points.
    """
    due: dict[datetime, list[Lot]] = {}
    begins = [period.since + (NOTICE if number else NO_NOTICE) for number, period in enumerate(program.expiry_periods)]
    untils = [*(period.since for period in program.expiry_periods[1:]), None]
    for lot in card.lots:
        for period, begin, until in zip(program.expiry_periods, begins, untils, strict=True):
            end = end_of(lot, card, period)
            if end is None:
                continue
            end = max(end, begin)
            if until is None or end < until:
                due.setdefault(end, []).append(lot)
                break
    return sorted(due.items(), key=lambda each: each[0])


def end_of(lot: Lot, card: Card, period: ExpiryPeriod) -> datetime | None:
    """When a lot ends by the rules of a period, had they always been so; None where it does not."""
    if period.days is None:
        return None
    if period.policy is ExpiryPolicy.INACTIVITY:
        return card.last_activity_at + timedelta(days=period.days)
    return lot.expires_at


def due_by(card: Card, program: Program, by: datetime) -> list[tuple[datetime, list[Lot]]]:
    """Which lots will have ended by then."""
    return [(end, lots) for end, lots in due_lots(card, program) if end <= by]


def standing(card: Card, program: Program, now: datetime) -> Card:
    """The card as it counts now: without what has ended, though nothing has recorded that yet."""
    gone = [lot for _, lots in due_by(card, program, now) for lot in lots]
    if not gone:
        return card
    return msgspec.structs.replace(
        card,
        points_balance=card.points_balance - sum(lot.points for lot in gone),
        lots=without(card.lots, all_parts(gone)),
    )


def expired(card: Card, facts: Facts) -> list[PointsExpired]:
    """Everything that was due by now, as if it had been taken when it was due."""
    return expiries(card, due_by(card, facts.program, facts.now), facts)


def expired_on_return(card: Card, facts: Facts) -> list[PointsExpired]:
    """What was given back to lots whose time is over ends with it, and not before it was given back."""
    past = [lot for _, lots in due_by(card, facts.program, facts.now) for lot in lots]
    return expiries(card, [(facts.now, past)] if past else [], facts)


def expiries(card: Card, due: list[tuple[datetime, list[Lot]]], facts: Facts) -> list[PointsExpired]:
    """One event for each instant at which lots end."""
    events = []
    balance = card.points_balance
    for end, lots in due:
        points = sum(lot.points for lot in lots)
        balance -= points
        events.append(
            PointsExpired(
                points=points,
                expired_at=end,
                lots=all_parts(lots),
                program_version=facts.program.version,
                stamp_count=card.stamp_count,
                points_balance=balance,
            )
        )
    return events


def next_expiry(card: Card, program: Program) -> NextExpiry | None:
    """The next expiry under the program's policy; None where nothing will expire."""
    due = due_lots(card, program)
    if not due:
        return None
    end, lots = due[0]
    return NextExpiry(sum(lot.points for lot in lots), end)
