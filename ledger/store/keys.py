"""Personal data under its owner's key: AES-256-GCM, one key a person, wrapped by a master key.

Erasing somebody is deleting their wrapped key: what was sealed stays where it is, hashes and all, and says nothing.
AES-GCM: NIST SP 800-38D; nonces are 96 random bits, good for 2^32 seals under one key (section 8.3).
"""

import hashlib
from collections import OrderedDict
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ledger.entropy import Entropy

KEY_BYTES = 32
NONCE_BYTES = 12


def key_from_text(secret: str) -> bytes:
    """A key of the right length from a secret of 32 characters or more, whatever they are."""
    return hashlib.sha256(secret.encode()).digest()


class SealBroken(Exception):
    """Sealed bytes do not belong to this key or place: the wrong master key, or the database was tampered with."""


class SubjectKey:
    """The key of one person."""

    def __init__(self, key: bytes, entropy: Entropy) -> None:
        self._cipher = AESGCM(key)
        self._entropy = entropy

    def seal(self, plain: bytes, place: bytes) -> bytes:
        """Encrypts for one place in the ledger: it opens nowhere else."""
        nonce = self._entropy.token(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plain, place)

    def open(self, sealed: bytes, place: bytes) -> bytes:
        """Decrypts, or raises `SealBroken`."""
        try:
            return self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], place)
        except InvalidTag:
            raise SealBroken from None


class Keyring:
    """Makes, wraps and unwraps people's keys; keeps the most recently used unwrapped, in memory only."""

    def __init__(self, master_key: bytes, entropy: Entropy, remembered_max: int = 50_000) -> None:
        self.master = SubjectKey(master_key, entropy)
        self._entropy = entropy
        self._remembered: OrderedDict[UUID, SubjectKey] = OrderedDict()
        self._remembered_max = remembered_max

    def create(self, subject: UUID) -> tuple[SubjectKey, bytes]:
        """A new person's key, and the same wrapped for storage; it is theirs only once that is stored."""
        key = self._entropy.token(KEY_BYTES)
        return SubjectKey(key, self._entropy), self.master.seal(key, subject.bytes)

    def unwrap(self, subject: UUID, wrapped: bytes) -> SubjectKey:
        """A person's key as it was stored."""
        key = SubjectKey(self.master.open(wrapped, subject.bytes), self._entropy)
        self.remember(subject, key)
        return key

    def of(self, subject: UUID | None, wrapped: bytes | None) -> SubjectKey | None:
        """A person's key from what is stored of it; None for nobody's, and where it was erased."""
        if subject is None or wrapped is None:
            return None
        return self.known(subject) or self.unwrap(subject, bytes(wrapped))

    def known(self, subject: UUID) -> SubjectKey | None:
        """A person's key if it was used lately."""
        key = self._remembered.get(subject)
        if key is not None:
            self._remembered.move_to_end(subject)
        return key

    def forget(self, subject: UUID) -> None:
        """Drops a person's key from memory."""
        self._remembered.pop(subject, None)

    def remember(self, subject: UUID, key: SubjectKey) -> None:
        """Keeps a stored key in memory, in place of the one that was used longest ago."""
        self._remembered[subject] = key
        self._remembered.move_to_end(subject)
        if len(self._remembered) > self._remembered_max:
            self._remembered.popitem(last=False)
