"""What is digested or stored with a claim is kept for good: these texts and bytes are never edited, only added to."""

from datetime import UTC, datetime
from typing import get_args
from uuid import UUID

import pytest

from ledger import card, merchant, program, staff_pin, terminal
from ledger.actor import Role
from ledger.commands import (
    NAMES,
    ChangePin,
    Command,
    CreatePin,
    EnrolCard,
    ImportCard,
    MergeCards,
    OnCard,
    OnMerchant,
    OnPin,
    OnProgram,
    OnTerminal,
    OpenAccount,
    OpenMerchant,
    OpenStore,
    OpenTerminal,
    RotateKey,
    StaffEntry,
    VerifyPin,
    WhichCard,
    request_text,
)
from ledger.program import Branding, ExpiryPolicy, ProgramType, Reward, Rules
from ledger.view import Holder, holder_of, value_of

A, B = UUID(int=1), UUID(int=2)
ID_A, ID_B = "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"
RULES = Rules(
    type=ProgramType.HYBRID,
    stamps_target=10,
    stamps_reward_description="A free coffee",
    points_per_euro=10,
    rewards=(Reward(id="coffee", name="Café", points_cost=100),),
    minimum_purchase_cents=0,
    welcome_bonus_points=0,
    cooldown_minutes=15,
    max_daily_stamps=5,
    require_staff_pin=True,
    points_expiration_days=None,
    expiry_policy=ExpiryPolicy.INACTIVITY,
    branding=Branding(),
    terms="",
    active=True,
)

TEXTS: list[tuple[Command, str]] = [
    (EnrolCard(), "enrol_card  {}"),
    (
        EnrolCard(customer_id="C-1", name="Ada", email="ada@home.example", phone="+352 1", locale="en"),
        'enrol_card  {"customer_id":"C-1","name":"Ada","email":"ada@home.example","phone":"+352 1","locale":"en"}',
    ),
    (
        OnCard(which=WhichCard(card_id=A), staff=StaffEntry(staff_id=B, staff_pin="1234"), command=card.AddStamp()),
        f'on_card add_stamp {{"which":{{"card_id":"{ID_A}"}},"staff":{{"staff_id":"{ID_B}"}},"command":{{}}}}',
    ),
    (
        OnCard(which=WhichCard(qr_code="t"), staff=StaffEntry(staff_pin="1234"), command=card.RedeemStamps()),
        'on_card redeem_stamps {"which":{"qr_code":"t"},"staff":{},"command":{}}',
    ),
    (
        OnCard(which=WhichCard(card_number="123456789015"), command=card.EarnPoints(100, "ORD-1")),
        'on_card earn_points {"which":{"card_number":"123456789015"},"staff":{},'
        '"command":{"purchase_amount_cents":100,"order_reference":"ORD-1"}}',
    ),
    (
        OnCard(which=WhichCard(card_number="123456789015"), command=card.EarnPoints(100)),
        'on_card earn_points {"which":{"card_number":"123456789015"},"staff":{},'
        '"command":{"purchase_amount_cents":100}}',
    ),
    (
        OnCard(which=WhichCard(card_id=A), command=card.RedeemPoints("coffee")),
        f'on_card redeem_points {{"which":{{"card_id":"{ID_A}"}},"staff":{{}},"command":{{"reward_id":"coffee"}}}}',
    ),
    (
        OnCard(which=WhichCard(card_id=A), command=card.Reverse(card=A, version=2)),
        f'on_card reverse {{"which":{{"card_id":"{ID_A}"}},"staff":{{}},"command":{{"card":"{ID_A}","version":2}}}}',
    ),
    (
        OnCard(
            which=WhichCard(card_id=A),
            command=card.Reverse(
                card=A, version=2, purchase_amount_cents=50, allow_negative_balance=True, reason="Broken"
            ),
        ),
        f'on_card reverse {{"which":{{"card_id":"{ID_A}"}},"staff":{{}},"command":{{"card":"{ID_A}","version":2,'
        '"purchase_amount_cents":50,"allow_negative_balance":true,"reason":"Broken"}}',
    ),
    (
        OnCard(which=WhichCard(card_id=A), command=card.Adjust(points=-5, stamps=1, reason="Miscounted")),
        f'on_card adjust {{"which":{{"card_id":"{ID_A}"}},"staff":{{}},'
        '"command":{"points":-5,"stamps":1,"reason":"Miscounted"}}',
    ),
    (
        OnCard(which=WhichCard(card_id=A), command=card.Adjust(points=5, reason="Forgotten")),
        f'on_card adjust {{"which":{{"card_id":"{ID_A}"}},"staff":{{}},"command":{{"points":5,"reason":"Forgotten"}}}}',
    ),
    (
        OnCard(which=WhichCard(card_id=A), command=card.Suspend("Lost")),
        f'on_card suspend {{"which":{{"card_id":"{ID_A}"}},"staff":{{}},"command":{{"reason":"Lost"}}}}',
    ),
    (
        OnCard(which=WhichCard(card_id=A), command=card.Reactivate("Found")),
        f'on_card reactivate {{"which":{{"card_id":"{ID_A}"}},"staff":{{}},"command":{{"reason":"Found"}}}}',
    ),
    (
        OnCard(which=WhichCard(card_id=A), command=card.Close()),
        f'on_card close {{"which":{{"card_id":"{ID_A}"}},"staff":{{}},"command":{{}}}}',
    ),
    (
        OnCard(which=WhichCard(card_id=A), command=card.ExpirePoints()),
        f'on_card expire_points {{"which":{{"card_id":"{ID_A}"}},"staff":{{}},"command":{{}}}}',
    ),
    (
        MergeCards(WhichCard(card_id=A), B),
        f'merge_cards  {{"which":{{"card_id":"{ID_A}"}},"into":"{ID_B}"}}',
    ),
    (ImportCard(source="old.csv", customer_id="C-1"), 'import_card  {"source":"old.csv","customer_id":"C-1"}'),
    (
        ImportCard(
            source="old.csv",
            customer_id="C-1",
            card_number="123456789015",
            qr_code="t",
            name="Ada",
            email="ada@home.example",
            phone="+352 1",
            locale="en",
            points=50,
            stamps=1,
            points_expire_at=datetime(2027, 3, 2, 11, tzinfo=UTC),
            enrolled_at=datetime(2025, 3, 2, 11, tzinfo=UTC),
        ),
        'import_card  {"source":"old.csv","customer_id":"C-1","card_number":"123456789015","qr_code":"t",'
        '"name":"Ada","email":"ada@home.example","phone":"+352 1","locale":"en","points":50,"stamps":1,'
        '"points_expire_at":"2027-03-02T11:00:00Z","enrolled_at":"2025-03-02T11:00:00Z"}',
    ),
    (
        OnProgram(program.CreateProgram(RULES)),
        'on_program create_program {"command":{"rules":{"type":"hybrid","stamps_target":10,'
        '"stamps_reward_description":"A free coffee","points_per_euro":10,'
        '"rewards":[{"id":"coffee","name":"Café","points_cost":100,"active":true}],'
        '"minimum_purchase_cents":0,"welcome_bonus_points":0,"cooldown_minutes":15,"max_daily_stamps":5,'
        '"require_staff_pin":true,"points_expiration_days":null,"expiry_policy":"inactivity",'
        '"branding":{"card_name":"Loyalty Card","card_color":"#1f4f82","logo_url":null,"hero_image_url":null},'
        '"terms":"","active":true}}}',
    ),
    (
        OnProgram(program.ChangeProgram({"terms": "x", "rewards": RULES.rewards, "branding": {"card_name": "C"}})),
        'on_program change_program {"command":{"changes":{"branding":{"card_name":"C"},'
        '"rewards":[{"id":"coffee","name":"Café","points_cost":100,"active":true}],"terms":"x"}}}',
    ),
    (
        CreatePin(name="Kim", pin="5678", role=staff_pin.StaffRole.STAFF, store_id=A),
        f'create_pin  {{"name":"Kim","pin":"5678","role":"staff","store_id":"{ID_A}"}}',
    ),
    (ChangePin(staff_id=A, pin="5678"), f'change_pin  {{"staff_id":"{ID_A}","pin":"5678"}}'),
    (
        ChangePin(staff_id=A, name="Kim", role=staff_pin.StaffRole.MANAGER, changes_store=True, store_id=B),
        f'change_pin  {{"staff_id":"{ID_A}","name":"Kim","role":"manager","changes_store":true,"store_id":"{ID_B}"}}',
    ),
    (OnPin(A, staff_pin.DeactivateStaffPin()), f'on_pin deactivate {{"staff_id":"{ID_A}","command":{{}}}}'),
    (OnPin(A, staff_pin.UnlockStaffPin()), f'on_pin unlock {{"staff_id":"{ID_A}","command":{{}}}}'),
    (VerifyPin(StaffEntry(staff_id=A, staff_pin="1234")), f'verify_pin  {{"staff":{{"staff_id":"{ID_A}"}}}}'),
    (
        OpenMerchant(name="Shop", locale="en", settings=merchant.MerchantSettings()),
        'open_merchant  {"name":"Shop","locale":"en","settings":{"staff_pin_policy":"required",'
        '"pin_max_failed_attempts":5,"pin_lockout_minutes":30,"allow_self_enrollment":true,"allow_reversals":true,'
        '"allow_cross_store_redemption":true,"require_order_reference":false,"log_ip_addresses":false,'
        '"reversals_need_manager":false}}',
    ),
    (
        OnMerchant(merchant.ChangeSettings({"pin_lockout_minutes": 5, "allow_reversals": False})),
        'on_merchant change_settings {"command":{"changes":{"allow_reversals":false,"pin_lockout_minutes":5}}}',
    ),
    (
        OpenStore(code="S1", name="Shop", time_zone="Europe/Paris", currency="EUR", locale="en"),
        'open_store  {"code":"S1","name":"Shop","time_zone":"Europe/Paris","currency":"EUR","locale":"en"}',
    ),
    (OpenTerminal(A, "Till"), f'open_terminal  {{"store_id":"{ID_A}","name":"Till"}}'),
    (RotateKey(A), f'rotate_key  {{"terminal_id":"{ID_A}"}}'),
    (OnTerminal(A, terminal.RevokeTerminal()), f'on_terminal revoke {{"terminal_id":"{ID_A}","command":{{}}}}'),
    (OnTerminal(A, terminal.UnlockTerminal()), f'on_terminal unlock {{"terminal_id":"{ID_A}","command":{{}}}}'),
    (
        OpenAccount(email="mo@shop.example", password="secret", role=Role.MANAGER),
        'open_account  {"email":"mo@shop.example","password":"secret","role":"manager"}',
    ),
]

HOLDERS = [
    (Holder(stream=A), b"\x81\xa6stream\xd9$00000000-0000-0000-0000-000000000001"),
    (
        Holder(
            stream=A,
            version=3,
            digest="d1",
            subject=B,
            answer=b"sealed",
            created=True,
            answered_under="terminal:x:k",
        ),
        b"\x87\xa6stream\xd9$00000000-0000-0000-0000-000000000001\xa7version\x03\xa6digest\xa2d1"
        b"\xa7subject\xd9$00000000-0000-0000-0000-000000000002\xa6answer\xc4\x06sealed\xa7created\xc3"
        b"\xaeanswered_under\xacterminal:x:k",
    ),
]


@pytest.mark.parametrize(("command", "text"), TEXTS, ids=[text.split("{")[0].strip() for _, text in TEXTS])
def test_the_text_of_a_request_is_the_same_for_good(command: Command, text: str) -> None:
    assert request_text(command) == text


def test_every_kind_of_command_has_a_text_here() -> None:
    inner: set[type] = set()
    for known, _ in TEXTS:
        if isinstance(known, OnCard | OnProgram | OnPin | OnMerchant | OnTerminal):
            inner.add(type(known.command))
    assert {type(known) for known, _ in TEXTS} == set(get_args(Command))
    assert {type(known) for known, _ in TEXTS} | inner == set(NAMES)


@pytest.mark.parametrize(("holder", "stored"), HOLDERS, ids=["the least", "everything"])
def test_what_holds_a_claim_is_read_and_stored_again_as_it_is(holder: Holder, stored: bytes) -> None:
    assert holder_of(stored) == holder
    assert value_of(holder) == stored
