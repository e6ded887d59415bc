"""What the handlers work with, made once per process from the settings; whoever needs no more than that needs no web
framework either.
"""

from dataclasses import dataclass

from api.tokens import Tokens
from ledger.entropy import Clock, Entropy, SystemClock, SystemEntropy
from ledger.handle import Ledger
from ledger.secrecy import Secrecy
from ledger.settings import Settings
from ledger.store.keys import Keyring, key_from_text
from ledger.store.log import Log
from projections.reading import Reader


@dataclass(frozen=True)
class Parts:
    """The ledger, what is read of it, and what stands beside both."""

    settings: Settings
    base_url: str
    ledger: Ledger
    reader: Reader
    tokens: Tokens
    clock: Clock
    entropy: Entropy


def parts_from(settings: Settings) -> Parts:
    """The real parts, wired: one log, one ledger, the machine's clock and chance."""
    if not (settings.database_url and settings.pepper and settings.master_key and settings.token_secret):
        raise ValueError("an API process needs a database and its secrets; `loyalty` fills them in")
    clock, entropy = SystemClock(), SystemEntropy()
    keyring = keyring_from(settings)
    secrecy = Secrecy(settings.pepper.encode(), entropy, clock, settings.bcrypt_rounds)
    return Parts(
        settings=settings,
        base_url=settings.base_url,
        reader=Reader(settings.database_url),
        ledger=Ledger(Log(settings.database_url, keyring), keyring, secrecy, clock, entropy),
        tokens=Tokens(settings.token_secret, settings.token_minutes),
        clock=clock,
        entropy=entropy,
    )


def keyring_from(settings: Settings) -> Keyring:
    """People's keys, under the master key of the settings."""
    if not settings.master_key:
        raise ValueError("people's keys need their master key; `loyalty` fills it in")
    return Keyring(key_from_text(settings.master_key), SystemEntropy())
