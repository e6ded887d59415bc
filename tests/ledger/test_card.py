"""What may be done with a card."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from ledger import card
from ledger.card import AddStamp, CardEnrolled, CardStatus, Command, RedeemPoints, RedeemStamps
from ledger.card_plans import card_facts
from ledger.errors import Rejected
from ledger.lots import Lot
from ledger.merchant import Merchant, MerchantSettings
from ledger.program import ExpiryPolicy, ProgramType
from tests.ledger.cards import (
    CUSTOMER,
    ENROL,
    LUXEMBOURG,
    STORES,
    TOKYO,
    a_card,
    bonus,
    earned,
    enrolled,
    facts,
    followed,
    points_redeemed,
    purchase,
    stamped,
    stamps_redeemed,
)
from tests.ledger.specification import MERCHANT_ID, STREAM, Given, at, given
from tests.shop import NOON

# ---- enrolling ------------------------------------------------------------------------------------------------


def test_a_customer_is_given_a_card() -> None:
    after = given(card).when(ENROL, facts()).then(enrolled())
    assert (after.state.id, after.state.merchant_id, after.state.store_id) == (STREAM, MERCHANT_ID, LUXEMBOURG)
    assert (after.state.customer, after.state.customer_id) == (CUSTOMER, "C-1")
    assert (after.state.card_number, after.state.qr_code) == ("123456789015", "token")
    assert (after.state.enrolled_at, after.state.last_activity_at) == (NOON, NOON)
    assert (after.state.status, after.state.stamp_count, after.state.points_balance) == (CardStatus.ACTIVE, 0, 0)


def test_enrolling_again_stays_quiet() -> None:
    a_card().when(ENROL, facts(welcome_bonus_points=50)).quiet()


def test_enrolling_again_stays_quiet_where_the_program_is_over() -> None:
    a_card().when(ENROL, facts(active=False)).quiet()


def test_an_inactive_program_takes_nobody() -> None:
    given(card).when(ENROL, facts(active=False)).refused("program_inactive")


@pytest.mark.parametrize("program_type", [ProgramType.POINTS, ProgramType.HYBRID])
def test_a_welcome_bonus_is_points_to_begin_with(program_type: ProgramType) -> None:
    welcoming = facts(type=program_type, welcome_bonus_points=50)
    after = given(card).when(ENROL, welcoming).then(enrolled(), bonus(50))
    assert (after.state.points_balance, after.state.lots) == (50, (Lot(2, 50, NOON, None),))


def test_a_stamps_program_gives_no_points_for_a_welcome() -> None:
    given(card).when(ENROL, facts(type=ProgramType.STAMPS, welcome_bonus_points=50)).then(enrolled())


def test_a_welcome_bonus_is_a_lot_like_any_other() -> None:
    policy = facts(welcome_bonus_points=50, points_expiration_days=10, expiry_policy=ExpiryPolicy.EARNED)
    given(card).when(ENROL, policy).then(enrolled(), bonus(50, NOON + timedelta(days=10)))


def test_of_an_erased_person_the_card_keeps_no_reference_and_no_token() -> None:
    erased = CardEnrolled(
        customer=CUSTOMER, card_number="123456789015", program_version=3, stamp_count=0, points_balance=0
    )
    state = given(card, erased).state
    assert (state.customer_id, state.qr_code) == (None, None)


# ---- what every command needs ---------------------------------------------------------------------------------

COMMANDS: list[Command] = [AddStamp(), RedeemStamps(), purchase(100), RedeemPoints("coffee")]
of_each_command = pytest.mark.parametrize("command", COMMANDS, ids=lambda command: type(command).__name__)


@of_each_command
def test_nothing_can_be_done_with_a_card_that_is_none(command: Command) -> None:
    given(card).when(command, facts()).refused("card_not_found")


@of_each_command
@pytest.mark.parametrize("status", [CardStatus.SUSPENDED, CardStatus.CLOSED, CardStatus.ERASED])
def test_only_an_active_card_takes_part(command: Command, status: CardStatus) -> None:
    a_card().but(status=status).when(command, facts()).refused("card_not_active", card_status=status)


@of_each_command
def test_nothing_goes_on_in_an_inactive_program(command: Command) -> None:
    a_card().when(command, facts(active=False)).refused("program_inactive")


@pytest.mark.parametrize("command", [AddStamp(), RedeemStamps()], ids=["add", "redeem"])
def test_a_points_program_has_no_stamps(command: Command) -> None:
    a_card().when(command, facts(type=ProgramType.POINTS)).refused("stamps_not_offered", program_type="points")


@pytest.mark.parametrize("command", [purchase(100), RedeemPoints("coffee")], ids=["earn", "redeem"])
def test_a_stamps_program_has_no_points(command: Command) -> None:
    a_card().when(command, facts(type=ProgramType.STAMPS)).refused("points_not_offered", program_type="stamps")


def test_where_a_merchant_has_several_stores_one_must_be_named() -> None:
    tenant = Merchant(id=MERCHANT_ID, name="Shop", locale="en", settings=MerchantSettings(), stores=STORES)
    first = followed()
    for store in (None, UUID(int=99)):
        with pytest.raises(Rejected, match="store_required"):
            card_facts(NOON, tenant, first, store)


def test_a_merchants_only_store_need_not_be_named() -> None:
    only = {LUXEMBOURG: STORES[LUXEMBOURG]}
    tenant = Merchant(id=MERCHANT_ID, name="Shop", locale="en", settings=MerchantSettings(), stores=only)
    first = followed()
    assert card_facts(NOON, tenant, first, None).store_id == LUXEMBOURG


# ---- other stores ---------------------------------------------------------------------------------------------

AT_HOME_ONLY = MerchantSettings(allow_cross_store_redemption=False)


def a_rich_card(store: UUID | None) -> Given:
    return given(card, enrolled(store), earned(100, 100), stamped(10, points=100))


@pytest.mark.parametrize("command", [RedeemStamps(), RedeemPoints("coffee")], ids=["stamps", "points"])
def test_a_merchant_may_give_rewards_only_where_the_card_was_opened(command: Command) -> None:
    a_rich_card(LUXEMBOURG).when(command, facts(store=TOKYO, settings=AT_HOME_ONLY)).refused(
        "other_store", store_id=str(LUXEMBOURG)
    )
    assert a_rich_card(LUXEMBOURG).when(command, facts(settings=AT_HOME_ONLY)).refusal is None


@pytest.mark.parametrize("command", [RedeemStamps(), RedeemPoints("coffee")], ids=["stamps", "points"])
def test_rewards_are_given_everywhere_unless_the_merchant_says_otherwise(command: Command) -> None:
    assert a_rich_card(LUXEMBOURG).when(command, facts(store=TOKYO)).refusal is None


@pytest.mark.parametrize("command", [RedeemStamps(), RedeemPoints("coffee")], ids=["stamps", "points"])
def test_a_card_of_no_store_is_at_home_everywhere(command: Command) -> None:
    assert a_rich_card(None).when(command, facts(store=TOKYO, settings=AT_HOME_ONLY)).refusal is None


@pytest.mark.parametrize("command", [AddStamp(), purchase(100)], ids=["stamp", "points"])
def test_stamps_and_points_are_collected_in_every_store(command: Command) -> None:
    assert a_card().when(command, facts(store=TOKYO, settings=AT_HOME_ONLY)).refusal is None


# ---- time passing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "event", [stamped(1), stamps_redeemed(0), earned(0, 0), points_redeemed(0)], ids=lambda event: type(event).__name__
)
def test_whatever_happens_to_a_card_is_activity(event: Any) -> None:
    later = NOON + timedelta(days=3)
    assert a_card(at(later), event).state.last_activity_at == later


def test_what_is_recorded_late_does_not_set_activity_back() -> None:
    later = NOON + timedelta(days=3)
    assert a_card(at(later), earned(10, 10), at(NOON), earned(10, 20)).state.last_activity_at == later
