"""Examples of every event as it is stored: what was once written must be read for ever.

`python -m tests.examples` writes the examples that are missing, and refuses where one that is there is not what
today's code stores: an event whose shape changed needs a new version in `ledger.store.names` and an upcaster.
"""

import hashlib
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

from ledger import account, card, customer, merchant, program, refusals, staff_pin, terminal
from ledger.actor import Actor, Occurrence, Role
from ledger.entropy import SystemEntropy
from ledger.lots import LotName, LotPart
from ledger.merchant import MerchantSettings, StaffPinPolicy, Store
from ledger.program import Branding, ExpiryPolicy, ProgramType, Reward, Rules
from ledger.staff_pin import StaffName, StaffRole
from ledger.store.codec import Origin, encode
from ledger.store.keys import SubjectKey
from ledger.store.names import STORED

FOLDER = Path(__file__).resolve().parent.parent / "schemas" / "examples" / "events"

KEY = bytes(range(32))
"""The key that what is personal in the examples is sealed with."""

MERCHANT = UUID("0190a1b2-0000-7000-8000-000000000001")
STREAM = UUID("0190a1b2-0000-7000-8000-000000000002")
STORE = UUID("0190a1b2-0000-7000-8000-000000000003")
TILL = UUID("0190a1b2-0000-7000-8000-000000000004")
STAFF = UUID("0190a1b2-0000-7000-8000-000000000005")
CUSTOMER = UUID("0190a1b2-0000-7000-8000-000000000006")
OCCURRED_AT = datetime(2026, 3, 2, 11, 0, 0, tzinfo=UTC)
RECORDED_AT = datetime(2026, 3, 2, 11, 0, 0, 250_000, tzinfo=UTC)
LATER = datetime(2027, 3, 2, 11, 0, 0, tzinfo=UTC)
DIGEST = "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
FINGERPRINT = "9n_RPMW-IXryTEx_dyaB_eI1YD04GNSxYo3j1WHdT-s"
BCRYPT = "$2b$12$EXAMPLEEXAMPLEEXAMPLEuEXAMPLEEXAMPLEEXAMPLEEXAMPLEEXAM"

SETTINGS = MerchantSettings(
    staff_pin_policy=StaffPinPolicy.OPTIONAL,
    pin_max_failed_attempts=3,
    pin_lockout_minutes=15,
    allow_self_enrollment=False,
    allow_reversals=False,
    allow_cross_store_redemption=False,
    require_order_reference=True,
    log_ip_addresses=True,
    reversals_need_manager=True,
)
RULES = Rules(
    type=ProgramType.HYBRID,
    stamps_target=10,
    stamps_reward_description="A free coffee",
    points_per_euro=10,
    rewards=(
        Reward(id="coffee", name="Coffee", points_cost=100),
        Reward(id="cake", name="Cake", points_cost=250, active=False),
    ),
    minimum_purchase_cents=200,
    welcome_bonus_points=50,
    cooldown_minutes=15,
    max_daily_stamps=5,
    require_staff_pin=True,
    points_expiration_days=365,
    expiry_policy=ExpiryPolicy.EARNED,
    branding=Branding(
        card_name="Coffee card",
        card_color="#804020",
        logo_url="https://example.org/logo.png",
        hero_image_url="https://example.org/hero.png",
    ),
    terms="One card per person.",
    active=True,
)
SOURCE = UUID("0190a1b2-0000-7000-8000-000000000007")
PART = LotPart(2, 50, SOURCE, OCCURRED_AT, LATER)
FACTS: Any = {"program_version": 3, "stamp_count": 7, "points_balance": 150}

EXAMPLES: tuple[msgspec.Struct, ...] = (
    merchant.MerchantCreated(name="Corner shop", locale="de-LU", settings=SETTINGS),
    merchant.SettingsChanged(SETTINGS),
    merchant.StoreAdded(
        Store(
            id=STORE, code="MAIN-1", name="Main street", time_zone="Europe/Luxembourg", currency="EUR", locale="fr-LU"
        )
    ),
    program.ProgramCreated(RULES),
    program.ProgramChanged(RULES),
    terminal.TerminalRegistered(store_id=STORE, name="Till 1", key_digest=DIGEST),
    terminal.TerminalKeyRotated(DIGEST),
    terminal.TerminalRevoked(),
    terminal.TerminalPinFailed(5, LATER),
    terminal.TerminalPinAccepted(),
    terminal.TerminalUnlocked(),
    staff_pin.StaffPinCreated(
        role=StaffRole.STAFF, store_id=STORE, fingerprint=FINGERPRINT, pin_hash=BCRYPT, private=StaffName("Alex")
    ),
    staff_pin.StaffPinChanged(
        role=StaffRole.MANAGER, store_id=STORE, fingerprint=FINGERPRINT, pin_hash=BCRYPT, private=StaffName("Alex B.")
    ),
    staff_pin.StaffPinDeactivated(),
    staff_pin.StaffPinFailed(5, LATER),
    staff_pin.StaffPinAccepted(),
    staff_pin.StaffPinUnlocked(),
    account.AccountAdded(role=Role.MANAGER, password_hash=BCRYPT, private=account.AccountHolder("manager@example.org")),
    account.PasswordChanged(BCRYPT),
    customer.CustomerRegistered(
        customer.Person(
            customer_id="customer-42", name="Zoë Q.", email="zoe@example.org", phone="+352 621 000 000", locale="de"
        )
    ),
    card.CardEnrolled(
        customer=CUSTOMER,
        card_number="123456789015",
        store_id=STORE,
        private=card.CardHolder("customer-42", "00112233445566778899aabbccddeeff"),
        **FACTS,
    ),
    card.WelcomeBonusGranted(points=50, expires_at=LATER, **FACTS),
    card.StampAdded(stamps=1, day=date(2026, 3, 2), stamps_today=2, reward_earned=False, **FACTS),
    card.StampsRedeemed(stamps=10, reward="A free coffee", **FACTS),
    card.PointsEarned(
        points=125,
        purchase_amount_cents=1_250,
        order_reference="order-77",
        expires_at=LATER,
        joins=LotName(2, SOURCE),
        **FACTS,
    ),
    card.PointsRedeemed(
        points=100,
        reward_id="coffee",
        reward_name="Coffee",
        lots=(PART, LotPart(4, 50, SOURCE, OCCURRED_AT, LATER)),
        **FACTS,
    ),
    card.PointsExpired(points=50, expired_at=LATER, lots=(PART,), **FACTS),
    card.TransactionReversed(
        card=SOURCE,
        version=2,
        whole=True,
        points=-40,
        stamps=-1,
        purchase_amount_cents=500,
        taken=(PART,),
        returned=(PART,),
        lot=LotName(2, SOURCE),
        points_expired=10,
        stamped_at=OCCURRED_AT,
        day=date(2026, 3, 2),
        private=card.Reason("Returned by Zoë"),
        **FACTS,
    ),
    card.BalanceAdjusted(
        points=-50,
        stamps=1,
        expires_at=LATER,
        joins=LotName(2, SOURCE),
        taken=(PART,),
        private=card.Reason("Forgotten by Zoë"),
        **FACTS,
    ),
    card.BalanceImported(source="Old system", points=50, stamps=1, expires_at=LATER, joins=LotName(2, SOURCE), **FACTS),
    card.CardMerged(into=SOURCE, points=-50, stamps=-1, lots=(PART,), **FACTS),
    card.CardAbsorbed(
        cards=(SOURCE, CUSTOMER),
        points=50,
        stamps=1,
        lots=(PART,),
        settled=(PART,),
        stamps_by_day={date(2026, 3, 2): 2},
        last_stamp_at=OCCURRED_AT,
        last_activity_at=OCCURRED_AT,
        **FACTS,
    ),
    card.CardSuspended(private=card.Reason("Lost by Zoë"), **FACTS),
    card.CardReactivated(private=card.Reason("Found by Zoë"), **FACTS),
    card.CardClosed(private=card.Reason("Asked for by Zoë"), **FACTS),
    refusals.CommandRefused(
        card=SOURCE,
        customer=CUSTOMER,
        command="add_stamp",
        code="daily_stamp_limit",
        facts={
            "stamps_today": 5,
            "max_daily_stamps": 5,
            "next_stamp_available_at": "2026-03-02T23:00:00Z",
        },
        program_version=3,
        named=STAFF,
    ),
)
"""One of every event, with a value in every field."""

PERSONAL = (staff_pin, account, customer, card, refusals)
"""Where every event belongs to a person, so that it may be sealed."""


class KnownNonce(SystemEntropy):
    """Chance that was thrown before, so that an example is made the same every time."""

    def __init__(self, nonce: bytes) -> None:
        self._nonce = nonce

    def token(self, size_bytes: int) -> bytes:
        """The first bytes of the nonce."""
        return self._nonce[:size_bytes]


def key_with(nonce: bytes) -> SubjectKey:
    """The examples' key, sealing with that nonce."""
    return SubjectKey(KEY, KnownNonce(nonce))


def example(event: msgspec.Struct) -> tuple[str, bytes]:
    """The file name and the stored bytes of an event's example."""
    name, _ = STORED[type(event)]
    at = Occurrence(
        stream=STREAM,
        version=5,
        merchant_id=MERCHANT,
        occurred_at=OCCURRED_AT,
        recorded_at=RECORDED_AT,
        actor=Actor(role=Role.TERMINAL, id=TILL, store_id=STORE, staff_id=STAFF),
    )
    personal = type(event).__module__.startswith(tuple(module.__name__ for module in PERSONAL))
    key = key_with(hashlib.sha256(name.encode()).digest()) if personal else None
    origin = Origin(ip_address="192.0.2.1", user_agent="Till/1.0") if personal else None
    topic, stored = encode(event, at, DIGEST, key, origin)
    return f"{topic}.json", stored


def main(arguments: list[str], folder: Path = FOLDER) -> int:
    """Writes what is missing unless something that is there is stored otherwise today."""
    if arguments:
        print("usage: python -m tests.examples", file=sys.stderr)
        return 2
    made = dict(example(event) for event in EXAMPLES)
    differing = [name for name, stored in made.items() if (folder / name).exists() and read(folder / name) != stored]
    for name in differing:
        print(f"{name} is not what is stored today: give the event a new version and an upcaster", file=sys.stderr)
    if differing:
        return 1
    folder.mkdir(parents=True, exist_ok=True)
    for name, stored in made.items():
        if not (folder / name).exists():
            (folder / name).write_bytes(stored + b"\n")
            print(f"wrote {name}")
    return 0


def read(path: Path) -> bytes:
    """An example's stored bytes; its file has a line break at the end besides."""
    return path.read_bytes().removesuffix(b"\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
