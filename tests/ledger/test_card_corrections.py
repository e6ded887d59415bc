"""What a shop does to a card by hand: correct it, bring a balance along, stop it, end it."""

from datetime import datetime
from typing import Any

import pytest
from msgspec.structs import replace

from ledger import card
from ledger.card import Adjust, CardStatus, Close, Command, ImportBalance, Reactivate, Suspend
from ledger.lots import Lot, LotName
from ledger.program import ExpiryPolicy, ProgramType
from tests.ledger.cards import (
    DAY,
    ENROL,
    ONE_DAY,
    SECOND,
    a_card,
    adjusted,
    closed,
    earned,
    enrolled,
    facts,
    imported,
    part,
    reactivated,
    stamped,
    suspended,
)
from tests.ledger.specification import given
from tests.shop import NOON

DATED: dict[str, Any] = {"points_expiration_days": 10, "expiry_policy": ExpiryPolicy.EARNED}
IN_TEN_DAYS = NOON + 10 * ONE_DAY
POINTS_MOST, STAMPS_MOST = 1_000_000_000, 1_000


def adjust(points: int = 0, stamps: int = 0) -> Adjust:
    return Adjust(points=points, stamps=stamps, reason="Counted again")


def bring(points: int = 0, stamps: int = 0, expires_at: datetime | None = None) -> ImportBalance:
    return ImportBalance(source="paper cards", points=points, stamps=stamps, expires_at=expires_at)


# ---- adjusting ------------------------------------------------------------------------------------------------


def test_points_are_given_for_a_reason() -> None:
    after = a_card().when(adjust(50), facts()).then(adjusted(50, points=50))
    assert after.state.lots == (Lot(2, 50, NOON, None),)


def test_points_given_join_those_without_an_end() -> None:
    after = a_card(earned(30, 30)).when(adjust(50), facts()).then(adjusted(80, points=50, joins=LotName(2)))
    assert after.state.lots == (Lot(2, 80, NOON, None),)


def test_points_given_end_as_earned_ones_do() -> None:
    after = (
        a_card(earned(30, 30)).when(adjust(50), facts(**DATED)).then(adjusted(80, points=50, expires_at=IN_TEN_DAYS))
    )
    assert after.state.lots == (Lot(2, 30, NOON, None), Lot(3, 50, NOON, IN_TEN_DAYS))


def test_points_are_taken_from_the_oldest_lots() -> None:
    two = a_card(earned(30, 30, expires_at=IN_TEN_DAYS), earned(50, 80, expires_at=IN_TEN_DAYS))
    taken = (part(2, 30, IN_TEN_DAYS), part(3, 10, IN_TEN_DAYS))
    after = two.when(adjust(-40), facts(**DATED)).then(adjusted(40, points=-40, taken=taken))
    assert after.state.lots == (Lot(3, 40, NOON, IN_TEN_DAYS),)


def test_stamps_are_given_and_taken_without_counting_for_a_day() -> None:
    more = a_card(stamped(1)).when(adjust(stamps=4), facts()).then(adjusted(0, 5, stamps=4))
    fewer = more.when(adjust(stamps=-5), facts()).then(adjusted(0, 0, stamps=-5))
    assert (fewer.state.stamps_on(DAY), fewer.state.last_stamp_at) == (1, NOON)


def test_points_and_stamps_are_corrected_together() -> None:
    both = a_card(earned(30, 30))
    after = both.when(adjust(-30, 2), facts()).then(adjusted(0, 2, points=-30, stamps=2, taken=(part(2, 30),)))
    after.when(adjust(5, -2), facts()).then(adjusted(5, 0, points=5, stamps=-2))


def test_a_correction_of_nothing_is_refused() -> None:
    a_card().when(adjust(), facts()).refused("nothing_to_adjust")


@pytest.mark.parametrize("points", [POINTS_MOST + 1, -POINTS_MOST - 1])
def test_points_beyond_all_reason_are_refused(points: int) -> None:
    a_card().when(adjust(points), facts()).refused(
        "invalid_adjustment", field="points", minimum=-POINTS_MOST, maximum=POINTS_MOST
    )


@pytest.mark.parametrize("stamps", [STAMPS_MOST + 1, -STAMPS_MOST - 1])
def test_stamps_beyond_all_reason_are_refused(stamps: int) -> None:
    a_card().when(adjust(stamps=stamps), facts()).refused(
        "invalid_adjustment", field="stamps", minimum=-STAMPS_MOST, maximum=STAMPS_MOST
    )


def test_the_most_that_has_reason_is_accepted() -> None:
    a_card().when(adjust(POINTS_MOST, STAMPS_MOST), facts()).then(
        adjusted(POINTS_MOST, STAMPS_MOST, points=POINTS_MOST, stamps=STAMPS_MOST)
    )
    rich = a_card(earned(POINTS_MOST, POINTS_MOST), stamped(STAMPS_MOST, points=POINTS_MOST))
    assert rich.when(adjust(-POINTS_MOST, -STAMPS_MOST), facts()).done().state.lots == ()


def test_no_correction_takes_points_below_zero() -> None:
    a_card(earned(30, 30)).when(adjust(-31), facts()).refused("not_enough_points", points_balance=30, points_missing=1)


def test_no_correction_takes_stamps_below_zero() -> None:
    a_card(stamped(3)).when(adjust(stamps=-4), facts()).refused("not_enough_stamps", stamp_count=3, stamps_missing=1)
    a_card(stamped(3)).when(adjust(stamps=-5), facts()).refused("not_enough_stamps", stamp_count=3, stamps_missing=2)


def test_a_card_that_owes_has_nothing_to_take() -> None:
    owing = a_card().but(points_balance=-10, stamp_count=-1)
    owing.when(adjust(-5), facts()).refused("not_enough_points", points_balance=-10, points_missing=5)
    owing.when(adjust(stamps=-5), facts()).refused("not_enough_stamps", stamp_count=-1, stamps_missing=5)


def test_what_is_owed_is_forgiven_by_a_correction() -> None:
    owing = a_card().but(points_balance=-10, stamp_count=-1)
    after = owing.when(adjust(4, 1), facts()).then(adjusted(-6, 0, points=4, stamps=1))
    assert after.state.lots == ()


def test_one_balance_may_be_corrected_while_the_other_is_owed() -> None:
    owing = a_card(stamped(2)).but(points_balance=-10)
    owing.when(adjust(stamps=-1), facts()).then(adjusted(-10, 1, stamps=-1))


def test_only_what_the_program_collects_can_be_given() -> None:
    a_card().when(adjust(5), facts(type=ProgramType.STAMPS)).refused("points_not_offered", program_type="stamps")
    a_card().when(adjust(stamps=5), facts(type=ProgramType.POINTS)).refused("stamps_not_offered", program_type="points")


def test_what_the_program_collects_no_more_can_be_taken() -> None:
    rich = a_card(earned(30, 30), stamped(3, points=30))
    assert rich.when(adjust(-5), facts(type=ProgramType.STAMPS)).refusal is None
    assert rich.when(adjust(stamps=-2), facts(type=ProgramType.POINTS)).refusal is None


# ---- bringing a balance along ---------------------------------------------------------------------------------


def test_a_balance_from_elsewhere_is_added() -> None:
    after = (
        a_card(earned(30, 30), stamped(1, points=30))
        .when(bring(50, 4), facts())
        .then(imported(80, 5, points=50, stamps=4, joins=LotName(2)))
    )
    assert after.state.lots == (Lot(2, 80, NOON, None),)
    assert (after.state.stamps_on(DAY), after.state.last_stamp_at) == (1, NOON)


def test_a_new_card_may_begin_with_a_balance_instead_of_a_welcome() -> None:
    enrolment = replace(ENROL, brings=bring(50, 4))
    after = (
        given(card)
        .when(enrolment, facts(welcome_bonus_points=99))
        .then(enrolled(), imported(50, 4, points=50, stamps=4))
    )
    assert (after.state.points_balance, after.state.stamp_count) == (50, 4)
    assert after.state.lots == (Lot(2, 50, NOON, None),)


def test_whoever_has_a_card_enrols_with_no_balance_again() -> None:
    a_card().when(replace(ENROL, brings=bring(50)), facts()).quiet()


def test_points_brought_along_end_when_the_other_system_says() -> None:
    after = (
        a_card(earned(30, 30))
        .when(bring(50, expires_at=IN_TEN_DAYS), facts(**DATED))
        .then(imported(80, points=50, expires_at=IN_TEN_DAYS))
    )
    assert after.state.lots == (Lot(2, 30, NOON, None), Lot(3, 50, NOON, IN_TEN_DAYS))


def test_points_brought_along_without_an_end_end_as_earned_ones_do() -> None:
    sooner = NOON + ONE_DAY
    a_card().when(bring(50), facts(**DATED)).then(imported(50, points=50, expires_at=IN_TEN_DAYS))
    a_card().when(bring(50, expires_at=sooner), facts(**DATED)).then(imported(50, points=50, expires_at=sooner))


@pytest.mark.parametrize("end", [NOON, NOON - SECOND])
def test_points_that_have_ended_cannot_be_brought_along(end: datetime) -> None:
    a_card().when(bring(50, expires_at=end), facts(**DATED)).refused("expired_already")
    given(card).when(replace(ENROL, brings=bring(50, expires_at=end)), facts(**DATED)).refused("expired_already")


def test_points_that_end_in_a_second_can_be_brought_along() -> None:
    assert a_card().when(bring(50, expires_at=NOON + SECOND), facts(**DATED)).refusal is None


@pytest.mark.parametrize("changes", [{}, {"points_expiration_days": 10}], ids=["never", "inactivity"])
def test_a_date_that_would_end_nothing_is_refused(changes: dict[str, Any]) -> None:
    a_card().when(bring(50, expires_at=IN_TEN_DAYS), facts(**changes)).refused("expiry_date_not_used")


@pytest.mark.parametrize("points", [-1, POINTS_MOST + 1])
def test_points_beyond_all_reason_cannot_be_brought_along(points: int) -> None:
    a_card().when(bring(points), facts()).refused("invalid_adjustment", field="points", minimum=0, maximum=POINTS_MOST)


@pytest.mark.parametrize("stamps", [-1, STAMPS_MOST + 1])
def test_stamps_beyond_all_reason_cannot_be_brought_along(stamps: int) -> None:
    a_card().when(bring(stamps=stamps), facts()).refused(
        "invalid_adjustment", field="stamps", minimum=0, maximum=STAMPS_MOST
    )


def test_only_what_the_program_collects_can_be_brought_along() -> None:
    only_stamps, only_points = facts(type=ProgramType.STAMPS), facts(type=ProgramType.POINTS)
    a_card().when(bring(5, 5), only_stamps).refused("points_not_offered", program_type="stamps")
    a_card().when(bring(5, 5), only_points).refused("stamps_not_offered", program_type="points")
    a_card().when(bring(stamps=5), only_stamps).then(imported(0, 5, stamps=5))
    a_card().when(bring(5), only_points).then(imported(5, points=5))


def test_stamps_brought_along_have_no_end_and_no_lot() -> None:
    after = a_card(earned(30, 30)).when(bring(stamps=4), facts(**DATED)).then(imported(30, 4, stamps=4))
    assert after.state.lots == (Lot(2, 30, NOON, None),)
    assert a_card(earned(30, 30)).when(bring(stamps=4, expires_at=NOON), facts()).refusal is None


def test_an_empty_balance_is_recorded_and_makes_no_lot() -> None:
    assert a_card().when(bring(), facts()).then(imported(0)).state.lots == ()


# ---- status ---------------------------------------------------------------------------------------------------


def test_a_card_is_stopped_and_takes_part_again() -> None:
    stopped = (
        a_card(earned(30, 30), stamped(1, points=30)).when(Suspend("Lost"), facts()).then(suspended(30, 1, "Lost"))
    )
    assert stopped.state.status is CardStatus.SUSPENDED
    again = stopped.when(Reactivate("Found"), facts()).then(reactivated(30, 1, "Found"))
    assert again.state == a_card(earned(30, 30), stamped(1, points=30)).state


def test_a_card_is_ended_with_what_is_on_it() -> None:
    after = a_card(earned(30, 30)).when(Close("Moved away"), facts()).then(closed(30, reason="Moved away"))
    assert (after.state.status, after.state.points_balance) == (CardStatus.CLOSED, 30)
    assert after.state.lots == (Lot(2, 30, NOON, None),)


def test_no_reason_need_be_given() -> None:
    a_card().when(Suspend(), facts()).then(suspended()).when(Close(), facts()).then(closed())


@pytest.mark.parametrize(
    ("command", "history"),
    [(Reactivate(), []), (Suspend("Lost"), [suspended()]), (Close("Again"), [closed()])],
    ids=["active", "suspended", "closed"],
)
def test_a_card_that_is_so_already_stays_quiet(command: Command, history: list[Any]) -> None:
    a_card(*history).when(command, facts()).quiet()


@pytest.mark.parametrize("command", [Suspend(), Reactivate()], ids=["suspend", "reactivate"])
def test_what_was_closed_stays_closed(command: Command) -> None:
    a_card(closed()).when(command, facts()).refused("card_not_active", card_status="closed")


@pytest.mark.parametrize("command", [Suspend(), Reactivate(), Close()], ids=["suspend", "reactivate", "close"])
def test_what_was_erased_stays_erased(command: Command) -> None:
    a_card().but(status=CardStatus.ERASED).when(command, facts()).refused("card_not_active", card_status="erased")


def test_a_status_is_no_activity_of_the_customer() -> None:
    later = NOON + ONE_DAY
    for command in (Suspend(), Close()):
        assert a_card().when(command, facts(later)).done().state.last_activity_at == NOON
    assert a_card(suspended()).when(Reactivate(), facts(later)).done().state.last_activity_at == NOON


# ---- what all of it needs -------------------------------------------------------------------------------------

BY_HAND: list[Command] = [adjust(5), bring(5), Suspend(), Reactivate(), Close()]
each_by_hand = pytest.mark.parametrize("command", BY_HAND, ids=lambda command: type(command).__name__)


@each_by_hand
def test_nothing_is_done_by_hand_to_a_card_that_is_none(command: Command) -> None:
    given(card).when(command, facts()).refused("card_not_found")


@pytest.mark.parametrize("command", [adjust(5), bring(5)], ids=["adjust", "import"])
@pytest.mark.parametrize("status", [CardStatus.CLOSED, CardStatus.ERASED])
def test_nothing_is_corrected_on_a_card_that_ended(command: Command, status: CardStatus) -> None:
    a_card().but(status=status).when(command, facts()).refused("card_not_active", card_status=status)


@pytest.mark.parametrize("command", [adjust(5), bring(5)], ids=["adjust", "import"])
@pytest.mark.parametrize("changes", [{"active": True}, {"active": False}], ids=["active", "over"])
def test_a_suspended_card_and_one_of_a_program_that_is_over_are_corrected(
    command: Command, changes: dict[str, Any]
) -> None:
    after = a_card(suspended()).when(command, facts(**changes)).done()
    assert (after.state.points_balance, after.state.status) == (5, CardStatus.SUSPENDED)


@pytest.mark.parametrize("command", [adjust(5), bring(5)], ids=["adjust", "import"])
def test_a_correction_keeps_a_card_from_expiring(command: Command) -> None:
    later = NOON + ONE_DAY
    assert a_card().when(command, facts(later)).done().state.last_activity_at == later
