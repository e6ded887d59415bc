"""Everything keyed by the pepper: what finds a PIN, what hides a claim, what proves a password.

bcrypt costs tens of milliseconds of a core by design, so a scan over all PINs or one bcrypt a command would end the
service. The fingerprint `HMAC(pepper, merchant, PIN)` finds the one candidate and is what bcrypt hashes; a good
verification is remembered for a few minutes, in this process's memory, under a key that never leaves it.
"""

import asyncio
import hashlib
import hmac
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import bcrypt

from ledger.entropy import Clock, Entropy
from ledger.errors import Unavailable

REMEMBERED_SECONDS = 300.0
REMEMBERED_MAX = 10_000
BCRYPT_THREADS = 2
BCRYPT_WAITING_MAX = 64


class WrongSecret(Exception):
    """A secret is not the one that this database was begun with; the message names its setting."""


class Secrecy:
    """Keyed hashes and slow hashes. `pepper` is at least 32 bytes and never in the database."""

    def __init__(self, pepper: bytes, entropy: Entropy, clock: Clock, bcrypt_rounds: int) -> None:
        # A copy of a keyed hash is made in half the time of a new one.
        self._keyed = hmac.new(pepper, digestmod="sha256")
        self._clock = clock
        self._rounds = bcrypt_rounds
        self._threads = ThreadPoolExecutor(BCRYPT_THREADS, thread_name_prefix="bcrypt")
        self._waiting = 0
        self._memory_key = entropy.token(32)
        self._remembered: OrderedDict[bytes, float] = OrderedDict()
        self._running: dict[bytes, asyncio.Task[bool]] = {}
        self._nobody = bcrypt.hashpw(entropy.token(16).hex().encode(), bcrypt.gensalt(bcrypt_rounds)).decode()

    def close(self) -> None:
        """Lets the threads go."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def blind(self, purpose: str, merchant: UUID, text: str) -> str:
        """A name for something secret or personal that only holders of the pepper can make again."""
        return self.blind_bytes(purpose, merchant, text).hex()

    def blind_bytes(self, purpose: str, merchant: UUID, text: str) -> bytes:
        """The same as bytes: HMAC-SHA256 (RFC 2104), of which 160 bits are kept (section 5)."""
        keyed = self._keyed.copy()
        keyed.update(f"{purpose}\0{merchant.hex}\0{text}".encode())
        return keyed.digest()[:20]

    def fingerprint(self, merchant: UUID, pin: str) -> str:
        """What stands for a PIN in the ledger."""
        return self.blind("pin", merchant, pin)

    def password_fingerprint(self, password: str) -> str:
        """What bcrypt hashes of a password: of any length, though bcrypt takes no more than 72 bytes."""
        return self.blind("password", UUID(int=0), password)

    async def slow_hash(self, secret: str) -> str:
        """bcrypt with a new salt, off the event loop."""
        loop = asyncio.get_running_loop()
        salt = bcrypt.gensalt(self._rounds)
        return (await loop.run_in_executor(self._threads, bcrypt.hashpw, secret.encode(), salt)).decode()

    async def matches(self, secret: str, slow_hash: str | None) -> bool:
        """Whether the slow hash is of that secret; None is nobody's and costs the same to find out."""
        memory = hashlib.blake2b(f"{secret}|{slow_hash}".encode(), key=self._memory_key, digest_size=16).digest()
        until = self._remembered.get(memory)
        if until is not None and self._clock.monotonic() < until:
            return True
        running = self._running.get(memory)
        if running is None:
            running = asyncio.get_running_loop().create_task(self._check(secret, slow_hash))
            self._running[memory] = running
            running.add_done_callback(lambda _: self._running.pop(memory, None))
        good = await asyncio.shield(running)
        if good:
            self._remember(memory)
        return good

    async def _check(self, secret: str, slow_hash: str | None) -> bool:
        known = (slow_hash or self._nobody).encode()
        if self._waiting >= BCRYPT_WAITING_MAX:
            raise Unavailable("too many PINs and passwords are waiting to be checked")
        self._waiting += 1
        try:
            check = asyncio.get_running_loop().run_in_executor(self._threads, bcrypt.checkpw, secret.encode(), known)
            return await check and slow_hash is not None
        finally:
            self._waiting -= 1

    def _remember(self, memory: bytes) -> None:
        self._remembered[memory] = self._clock.monotonic() + REMEMBERED_SECONDS
        self._remembered.move_to_end(memory)
        if len(self._remembered) > REMEMBERED_MAX:
            self._remembered.popitem(last=False)


def key_digest(secret: str) -> str:
    """What is kept of a terminal key. Its secret part is random, so one SHA-256 is as good as any slow hash."""
    return hashlib.sha256(secret.encode()).hexdigest()
