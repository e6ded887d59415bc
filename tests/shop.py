"""A shop to test with: a merchant with a store, a till, a program and a staff PIN, made through the door."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import msgspec

from ledger import card, program
from ledger.actor import PLATFORM, Caller, Role
from ledger.commands import (
    Command,
    CreatePin,
    EnrolCard,
    OnCard,
    OnProgram,
    OpenMerchant,
    OpenStore,
    OpenTerminal,
    StaffEntry,
    WhichCard,
)
from ledger.entropy import SystemEntropy
from ledger.entry import Handled
from ledger.handle import Ledger
from ledger.merchant import MerchantSettings
from ledger.program import Branding, ExpiryPolicy, ProgramType, Reward, Rules
from ledger.secrecy import Secrecy, key_digest
from ledger.staff_pin import StaffRole
from ledger.store.codec import Read
from ledger.store.keys import Keyring
from ledger.store.log import Log
from ledger.store.names import CARD

PIN = "1234"
POSITION_MAX = 2**63 - 1
EVENTS_MAX = 10_000
NOON = datetime(2026, 3, 2, 11, 0, tzinfo=UTC)
OPERATOR = Caller(role=Role.OPERATOR, id=UUID(int=1), merchant_id=PLATFORM)


def rules(**changes: Any) -> Rules:
    """A hybrid program with the product's defaults."""
    plain = Rules(
        type=ProgramType.HYBRID,
        stamps_target=10,
        stamps_reward_description="A free coffee",
        points_per_euro=10,
        rewards=(Reward(id="coffee", name="Coffee", points_cost=100), Reward(id="cake", name="Cake", points_cost=250)),
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
    return msgspec.structs.replace(plain, **changes)


@dataclass
class SettableClock:
    """A clock that a test sets."""

    time: datetime = NOON

    def now(self) -> datetime:
        """The time it was set to."""
        return self.time

    def monotonic(self) -> float:
        """Seconds since the epoch of the time it was set to."""
        return self.time.timestamp()

    def forward(self, **by: float) -> None:
        """Lets time pass."""
        self.time += timedelta(**by)


def ledger_on(database_url: str, clock: Any, **secrets: bytes) -> Ledger:
    """A ledger as one server process has it; two of them on one database stand for two servers."""
    entropy = SystemEntropy()
    keyring = Keyring(secrets.get("master_key", b"m" * 32), entropy)
    secrecy = Secrecy(secrets.get("pepper", b"p" * 32), entropy, clock, bcrypt_rounds=4)
    return Ledger(Log(database_url, keyring), keyring, secrecy, clock, entropy)


@dataclass
class Shop:
    """A merchant as a till sees it."""

    ledger: Ledger
    clock: Any
    merchant: Caller
    till: Caller
    staff_id: UUID
    store_id: UUID
    terminal_key: str
    keys: int = field(default=0)

    def on(self, ledger: Ledger) -> "Shop":
        """The same shop through another server."""
        return Shop(
            ledger, self.clock, self.merchant, self.till, self.staff_id, self.store_id, self.terminal_key, self.keys
        )

    async def enrol(self, **person: Any) -> card.Card:
        """A new card."""
        handled = await self.ledger.handle(EnrolCard(**person), self.till)
        assert handled.result is not None
        return handled.result.main.state  # type: ignore[no-any-return]  # a loaded stream's state is Any here

    async def ask(
        self, which: card.Card, command: Any, *, key: str | None = None, pin: str = PIN, **options: Any
    ) -> Handled:
        """Sends a command about a card, with a key of its own unless one is given."""
        staff = StaffEntry(staff_pin=pin, staff_id=options.pop("staff_id", None))
        request = OnCard(which=WhichCard(card_id=which.id), staff=staff, command=command)
        return await self.ledger.handle(request, self.till, key=key or str(uuid4()), **options)

    async def send(self, command: Command, caller: Caller | None = None, **options: Any) -> Handled:
        """Sends any command, as the till unless another caller is given."""
        return await self.ledger.handle(command, caller or self.till, **options)

    async def history(self, stream: UUID) -> list[tuple[int, Read]]:
        """All of a stream's events with their positions, newest first."""
        return await self.ledger.log.history([stream], POSITION_MAX, EVENTS_MAX)

    async def card(self, which: card.Card) -> card.Card:
        """The card as the log has it now."""
        loaded = await self.ledger.log.load(CARD, which.id, fresh=True)
        assert loaded is not None
        return loaded.state


async def open_shop(
    ledger: Ledger,
    clock: Any,
    *,
    settings: MerchantSettings | None = None,
    code: str | None = None,
    **program_rules: Any,
) -> Shop:
    """Opens a merchant with everything a till needs."""
    merchant_id = uuid4()
    admin = Caller(role=Role.ADMIN, id=uuid4(), merchant_id=merchant_id)
    await ledger.handle(OpenMerchant(name="Corner shop", locale="en", settings=settings or MerchantSettings()), admin)
    opened = await ledger.handle(
        OpenStore(
            code=code or f"S{merchant_id.hex[:12].upper()}",
            name="Main street",
            time_zone="Europe/Luxembourg",
            currency="EUR",
            locale="en",
        ),
        admin,
    )
    assert opened.result is not None
    (store_id,) = opened.result.main.state.stores
    till = await ledger.handle(OpenTerminal(store_id=store_id, name="Till 1"), admin)
    assert till.result is not None
    assert till.result.secret is not None
    await ledger.handle(OnProgram(program.CreateProgram(rules(**program_rules))), admin)
    pin = await ledger.handle(CreatePin(name="Alex", pin=PIN, role=StaffRole.STAFF), admin)
    assert pin.result is not None
    key = till.result.secret
    caller = Caller(
        role=Role.TERMINAL,
        id=till.result.main.stream,
        merchant_id=merchant_id,
        store_id=store_id,
        key_digest=key_digest(key.rsplit("_", 1)[1]),
    )
    return Shop(ledger, clock, admin, caller, pin.result.main.stream, store_id, key)
