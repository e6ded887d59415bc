"""What the handlers work with, made once per process by the composition root."""

from dataclasses import dataclass

from api.tokens import Tokens
from ledger.entropy import Clock, Entropy
from ledger.handle import Ledger
from ledger.settings import Settings
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
