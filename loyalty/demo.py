"""A merchant to try everything with, and `demo.json` with all that it takes to call the API as each of its people."""

import json
import os
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

from api.parts import Parts
from api.tokens import Identity, Tokens
from ledger.actor import OPERATOR, PLATFORM, Caller, Role
from ledger.commands import (
    CreatePin,
    EnrolCard,
    OnProgram,
    OpenAccount,
    OpenMerchant,
    OpenStore,
    OpenTerminal,
)
from ledger.defaults import default_rules, default_settings
from ledger.entry import Result
from ledger.program import CreateProgram, ProgramType, Reward
from ledger.staff_pin import StaffRole
from ledger.store.names import MERCHANT

STORE_CODE = "DEMO"
STAFF_PIN = "1234"
CUSTOMER_ID = "demo-customer"
CUSTOMER_TOKEN_MINUTES = 30 * 24 * 60
"""In a shop, its identity provider renews the token; a demo's is to be good for as long as somebody tries things."""


async def demo(parts: Parts, path: Path) -> dict[str, Any]:
    """The demo's credentials: those of before if their merchant is still there, else of a new one."""
    if path.exists():
        known: dict[str, Any] = json.loads(path.read_text())
        if await parts.ledger.log.load(MERCHANT, UUID(known["merchant_id"])) is not None:
            credentials = known | renewed(parts, UUID(known["merchant_id"]))
            write(path, credentials)
            return credentials
    credentials = await new_demo(parts)
    write(path, credentials)
    return credentials


async def new_demo(parts: Parts) -> dict[str, Any]:
    """A merchant with a store, a till, a program, a PIN, accounts and a customer."""
    taken = await parts.ledger.log.claim(PLATFORM, "store_code", STORE_CODE) is not None
    suffix = f"-{parts.entropy.digits(4)}" if taken else ""
    merchant_id = parts.entropy.new_id()
    admin = Caller(role=Role.OPERATOR, id=OPERATOR, merchant_id=merchant_id)
    store_id, terminal_id, terminal_key, staff_id = await open_shop(parts, admin, STORE_CODE + suffix)
    till = Caller(role=Role.OPERATOR, id=OPERATOR, merchant_id=merchant_id, store_id=store_id)
    card = (await done(parts, EnrolCard(customer_id=CUSTOMER_ID, name="Demo Customer"), till)).main.state
    credentials: dict[str, Any] = {
        "base_url": parts.base_url,
        "merchant_id": str(merchant_id),
        "store_id": str(store_id),
        "store_code": STORE_CODE + suffix,
        "terminal_id": str(terminal_id),
        "terminal_key": terminal_key,
        "staff_id": str(staff_id),
        "staff_pin": STAFF_PIN,
        "card_number": card.card_number,
        **renewed(parts, merchant_id),
    }
    for role in (Role.MANAGER, Role.ADMIN, Role.AUDITOR):
        owner = PLATFORM if role is Role.ADMIN else merchant_id
        email = f"{role}{suffix}@demo.example"
        password = parts.entropy.token(12).hex()
        caller = Caller(role=Role.OPERATOR, id=OPERATOR, merchant_id=owner)
        await parts.ledger.handle(OpenAccount(email=email, password=password, role=role), caller)
        credentials |= {f"{role}_email": email, f"{role}_password": password}
    return credentials


async def open_shop(parts: Parts, admin: Caller, code: str) -> tuple[UUID, UUID, str, UUID]:
    """The store, the till with its key, and the PIN of a demo merchant."""
    settings = default_settings(parts.settings)
    await done(parts, OpenMerchant(name="Demo Café", locale="en", settings=settings), admin)
    store = OpenStore(code=code, name="Demo Café", time_zone="Europe/Luxembourg", currency="EUR", locale="en")
    (store_id,) = (await done(parts, store, admin)).main.state.stores
    till = await done(parts, OpenTerminal(store_id=store_id, name="Till 1"), admin)
    assert till.secret is not None, "a new till has a key"
    rules = default_rules(parts.settings, ProgramType.HYBRID)
    rewards = (
        Reward(id="coffee", name="A coffee", points_cost=200),
        Reward(id="breakfast", name="A breakfast", points_cost=1_000),
    )
    program = CreateProgram(msgspec.structs.replace(rules, rewards=rewards, stamps_reward_description="A free coffee"))
    await done(parts, OnProgram(program), admin)
    pin = await done(parts, CreatePin(name="Demo Staff", pin=STAFF_PIN, role=StaffRole.STAFF), admin)
    return store_id, till.main.stream, till.secret, pin.main.stream


async def done(parts: Parts, command: Any, caller: Caller) -> Result:
    """Sends a command and takes what it came to."""
    handled = await parts.ledger.handle(command, caller)
    assert handled.result is not None, "a command without a key is never a replay"
    return handled.result


def renewed(parts: Parts, merchant_id: UUID) -> dict[str, Any]:
    """What is said anew at each start: where the API is now, and the demo customer's token and card link."""
    assert parts.settings.token_secret is not None, "an installation has its secrets"
    customer = Identity(role=Role.CUSTOMER, merchant_id=merchant_id, customer_id=CUSTOMER_ID)
    token = Tokens(parts.settings.token_secret, CUSTOMER_TOKEN_MINUTES).issue(customer, parts.clock.now())
    link = parts.tokens.issue_card_link(customer, parts.clock.now())
    return {
        "base_url": parts.base_url,
        "customer_token": token,
        "customer_link": f"{parts.base_url}/api/v1/storefront/loyalty/card?link={link}",
    }


def write(path: Path, credentials: dict[str, Any]) -> None:
    """Puts the credentials in place in one step, for their owner's eyes only."""
    draft = path.with_suffix(f".{os.getpid()}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(credentials, file, indent=2)
        file.write("\n")
    draft.replace(path)
