"""A merchant's program: its limits, its changes and its versions."""

from datetime import timedelta
from typing import Any

import pytest

from ledger import program
from ledger.errors import Fact
from ledger.program import (
    LIMITS,
    Branding,
    ChangeProgram,
    CreateProgram,
    ProgramChanged,
    ProgramCreated,
    ProgramType,
    Reward,
)
from tests.ledger.specification import MERCHANT_ID, STREAM, at, given
from tests.shop import NOON, rules

CREATED = ProgramCreated(rules())


def refused(changes: dict[str, Any], **facts: Fact) -> None:
    """The values are refused, at the beginning and in a change."""
    given(program).when(CreateProgram(rules(**changes))).refused("invalid_program", **facts)
    given(program, CREATED).when(ChangeProgram(changes)).refused("invalid_program", **facts)


def allowed(changes: dict[str, Any]) -> None:
    """The values are taken, at the beginning and in a change."""
    given(program).when(CreateProgram(rules(**changes))).then(ProgramCreated(rules(**changes)))
    before = ProgramCreated(rules(stamps_target=7, points_per_euro=7))
    given(program, before).when(ChangeProgram(changes | {"terms": "New"})).then(
        ProgramChanged(rules(**{"stamps_target": 7, "points_per_euro": 7, "terms": "New"} | changes))
    )


def test_a_merchant_is_given_a_program() -> None:
    given(program).when(CreateProgram(rules())).then(CREATED)


def test_a_merchant_has_one_program() -> None:
    given(program, CREATED).when(CreateProgram(rules(terms="Other"))).refused("program_exists", program_id=str(STREAM))


def test_some_rules_change_and_the_rest_stays() -> None:
    changes: dict[str, object] = {"stamps_target": 5, "active": False}
    given(program, CREATED).when(ChangeProgram(changes)).then(ProgramChanged(rules(stamps_target=5, active=False)))


def test_of_the_branding_too_only_what_is_given_changes() -> None:
    branded = rules(branding=Branding(card_name="Club", card_color="#000000"))
    repainted = rules(branding=Branding(card_name="Club", card_color="#ffffff"))
    changes: dict[str, object] = {"branding": {"card_color": "#ffffff"}}
    after = given(program, ProgramCreated(branded)).when(ChangeProgram(changes)).then(ProgramChanged(repainted))
    after.when(ChangeProgram(changes)).quiet()


@pytest.mark.parametrize("changes", [{}, {"stamps_target": 10}, {"rewards": rules().rewards}])
def test_rules_that_are_already_so_stay_quiet(changes: dict[str, object]) -> None:
    given(program, CREATED).when(ChangeProgram(changes)).quiet()


def test_only_a_program_that_is_there_changes() -> None:
    given(program).when(ChangeProgram({})).refused("program_not_found")


def test_every_change_makes_a_new_version() -> None:
    first = given(program, CREATED)
    second = first.then(at(NOON + timedelta(days=1)), ProgramChanged(rules(stamps_target=5)))
    assert (first.state.version, first.state.rules, first.state.changed_at) == (1, rules(), NOON)
    assert (second.state.version, second.state.rules.stamps_target) == (2, 5)
    assert second.state.changed_at == NOON + timedelta(days=1)
    assert (second.state.id, second.state.merchant_id) == (STREAM, MERCHANT_ID)


@pytest.mark.parametrize(("field", "limits"), LIMITS.items())
def test_numbers_have_limits(field: str, limits: tuple[int, int]) -> None:
    lowest, highest = limits
    for value in (lowest - 1, highest + 1):
        refused({field: value}, field=field, minimum=lowest, maximum=highest)
    for value in limits:
        allowed({field: value})


@pytest.mark.parametrize("days", [0, -1, 36_501])
def test_expiration_days_have_limits(days: int) -> None:
    refused({"points_expiration_days": days}, field="points_expiration_days", minimum=1, maximum=36_500)


@pytest.mark.parametrize("days", [None, 1, 36_500])
def test_points_expire_after_a_day_a_century_or_never(days: int | None) -> None:
    allowed({"points_expiration_days": days})


def catalogue(count: int) -> tuple[Reward, ...]:
    return tuple(Reward(id=f"reward-{number}", name="Reward", points_cost=1) for number in range(count))


def test_a_program_has_a_hundred_rewards_at_most() -> None:
    allowed({"rewards": catalogue(0)})
    allowed({"rewards": catalogue(100)})
    refused({"rewards": catalogue(101)}, field="rewards", maximum=100)


def test_no_two_rewards_have_the_same_id() -> None:
    twice = (Reward(id="coffee", name="Coffee", points_cost=1), Reward(id="coffee", name="Cake", points_cost=2))
    refused({"rewards": twice}, field="rewards", reason="two rewards have the same id")


def test_a_reward_costs_something() -> None:
    for cost in (0, -1, 1_000_000_001):
        priced = (Reward(id="coffee", name="Coffee", points_cost=cost),)
        refused({"rewards": priced}, field="rewards.points_cost", minimum=1, maximum=1_000_000_000)
    for cost in (1, 1_000_000_000):
        allowed({"rewards": (Reward(id="coffee", name="Coffee", points_cost=cost),)})


@pytest.mark.parametrize(
    ("program_type", "stamps", "points"),
    [(ProgramType.STAMPS, True, False), (ProgramType.POINTS, False, True), (ProgramType.HYBRID, True, True)],
)
def test_a_program_collects_what_its_type_says(program_type: ProgramType, stamps: bool, points: bool) -> None:
    collected = rules(type=program_type)
    assert (collected.has_stamps, collected.has_points) == (stamps, points)
