"""Streams whose names follow from what they are about, so that nobody has to look them up."""

from functools import lru_cache
from uuid import UUID, uuid5

from ledger.actor import PLATFORM
from ledger.secrecy import Secrecy

PROGRAM_NAMESPACE = UUID("6e0f8d3c-3f0a-5f4e-9d53-0d5d1c5d9a11")
REFUSALS_NAMESPACE = UUID("b2a1c9f4-7d36-5c0b-8e47-3f9a60d1e752")


@lru_cache(maxsize=10_000)
def program_stream(merchant_id: UUID) -> UUID:
    """The stream of a merchant's one program."""
    return uuid5(PROGRAM_NAMESPACE, merchant_id.hex)


def refusals_stream(card_id: UUID) -> UUID:
    """The stream of what was asked of a card and refused."""
    return uuid5(REFUSALS_NAMESPACE, card_id.hex)


def account_stream(secrecy: Secrecy, email: str) -> UUID:
    """The stream of the one account with that e-mail address, on the whole platform."""
    return UUID(bytes=secrecy.blind_bytes("account", PLATFORM, email.casefold())[:16])
