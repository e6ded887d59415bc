"""What the handlers work with, made once per process by the composition root."""

from dataclasses import dataclass

from api.tokens import Tokens
from ledger.entropy import Clock, Entropy
from ledger.handle import Ledger
from ledger.settings import Settings


@dataclass(frozen=True)
class Parts:
    """The ledger and what stands beside it."""

    settings: Settings
    base_url: str
    ledger: Ledger
    tokens: Tokens
    clock: Clock
    entropy: Entropy
