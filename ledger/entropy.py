"""Time and chance: what the rules must not reach for themselves, and the only place that does."""

import os
import time
import uuid
from datetime import UTC, datetime
from typing import Protocol

CARD_NUMBER_BODY_DIGITS = 11
QR_TOKEN_BYTES = 16
PAGE_BYTES = 512


class Clock(Protocol):
    """Tells the time. Order in the ledger is by log position; the clock only dates what happened."""

    def now(self) -> datetime:
        """The present instant, in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds since some fixed point, never going backwards; for how long something is remembered."""
        ...


class Entropy(Protocol):
    """Gives what nobody can guess or what nobody has used before."""

    def new_id(self) -> uuid.UUID:
        """An identifier that is unique without asking anyone."""
        ...

    def token(self, size_bytes: int) -> bytes:
        """Random bytes fit for keys and tokens."""
        ...

    def digits(self, count: int) -> str:
        """Random decimal digits, each equally likely."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The machine's time, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """The machine's uptime clock, in seconds."""
        return time.monotonic()


class SystemEntropy:
    """The operating system's random source, asked for a page at a time, since each command needs a few bytes.

    Identifiers are UUIDs of version 7 (RFC 9562, section 5.7): they begin with the time in milliseconds, so that
    new rows of an index land beside each other.
    """

    def __init__(self) -> None:
        self._page = b""

    def new_id(self) -> uuid.UUID:
        """A UUID of version 7."""
        milliseconds = time.time_ns() // 1_000_000
        random = int.from_bytes(self.token(10), "big")
        value = (milliseconds << 80) | (random & ~(0xF << 76) & ~(0x3 << 62)) | (7 << 76) | (2 << 62)
        return uuid.UUID(int=value)

    def token(self, size_bytes: int) -> bytes:
        """Random bytes of the operating system, each given once."""
        if len(self._page) < size_bytes:
            self._page = os.urandom(PAGE_BYTES + size_bytes)
        taken, self._page = self._page[:size_bytes], self._page[size_bytes:]
        return taken

    def digits(self, count: int) -> str:
        """Digits from 64 bits more than they need, which leaves no bias worth the name."""
        size = 8 + count // 2
        return str(int.from_bytes(self.token(size), "big") % 10**count).zfill(count)
