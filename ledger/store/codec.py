"""Events to the bytes that are stored and hashed, and back.

The stored bytes of an event are one JSON document, its envelope: where the event stands, what caused it, the
SHA-256 of the stored bytes of the event before it in its stream (64 zeros for the first), its data, and what of it
is personal, sealed. The hash of an event is the SHA-256 of its stored bytes and of nothing else, so that anyone can
recompute the chain of a stream from its bytes alone.
"""

import base64
import hashlib
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from ledger.actor import Actor, Occurrence
from ledger.store.keys import SubjectKey
from ledger.store.names import STORED, TOPICS, UnknownEvent, event_type_of, upcast

NO_PREVIOUS_HASH = "0" * 64
NOTHING = msgspec.Raw(b"")


class Origin(msgspec.Struct, gc=False, frozen=True, omit_defaults=True, kw_only=True):
    """The address and program a command came from; kept only where the merchant's settings say so."""

    ip_address: str | None = None
    user_agent: str | None = None


class Secret(msgspec.Struct, gc=False, frozen=True, omit_defaults=True, kw_only=True):
    """What of an event is personal, as it is sealed."""

    private: msgspec.Raw = NOTHING
    origin: Origin | None = None


class Envelope(msgspec.Struct, gc=False, frozen=True, omit_defaults=True, kw_only=True):
    """An event as it is stored."""

    name: str
    event_version: int
    stream: UUID
    version: int
    merchant_id: UUID
    occurred_at: datetime
    recorded_at: datetime
    actor: Actor
    previous_hash: str
    data: Any
    sealed: str | None = None


class StoredEnvelope(Envelope, frozen=True, omit_defaults=True, kw_only=True):
    """The same with its data still undecoded."""

    data: msgspec.Raw = msgspec.Raw(b"{}")


class Read(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """An event as it was read back."""

    event: Any
    at: Occurrence
    name: str
    event_version: int
    previous_hash: str
    hash: str
    origin: Origin | None


def hash_of(stored: bytes) -> str:
    """The hash of an event, in hex."""
    return hashlib.sha256(stored).hexdigest()


def place_of(stream: UUID, version: int) -> bytes:
    """The associated data that ties sealed data to its event."""
    return f"{stream}:{version}".encode()


_encoder = msgspec.json.Encoder()
_envelopes = msgspec.json.Decoder(StoredEnvelope)
_secrets = msgspec.json.Decoder(Secret)
_data = {event_type: msgspec.json.Decoder(event_type) for event_type in STORED}


def encode(
    event: Any, at: Occurrence, previous_hash: str, key: SubjectKey | None, origin: Origin | None
) -> tuple[str, bytes]:
    """The topic and the stored bytes of an event. Personal data without a key to seal it is a defect."""
    name, event_version = STORED[type(event)]
    private = getattr(event, "private", None)
    sealed = None
    if private is not None:
        if key is None:
            raise ValueError(f"{name} holds personal data and nobody's key was given")
        event = msgspec.structs.replace(event, private=None)
    if key is not None and (private is not None or origin is not None):
        secret = Secret(
            private=msgspec.Raw(_encoder.encode(private)) if private is not None else NOTHING, origin=origin
        )
        box = key.seal(_encoder.encode(secret), place_of(at.stream, at.version))
        sealed = base64.b64encode(box).decode()
    envelope = Envelope(
        name=name,
        event_version=event_version,
        stream=at.stream,
        version=at.version,
        merchant_id=at.merchant_id,
        occurred_at=at.occurred_at,
        recorded_at=at.recorded_at,
        actor=at.actor,
        previous_hash=previous_hash,
        data=event,
        sealed=sealed,
    )
    return TOPICS[type(event)], _encoder.encode(envelope)


def opened(stored: bytes, key: SubjectKey | None) -> tuple[StoredEnvelope, Secret]:
    """An event's envelope, its data as they were stored, and what was sealed; nothing without its owner's key."""
    envelope = _envelopes.decode(stored)
    if envelope.sealed is None or key is None:
        return envelope, Secret()
    box = base64.b64decode(envelope.sealed)
    return envelope, _secrets.decode(key.open(box, place_of(envelope.stream, envelope.version)))


def decode(stored: bytes, key: SubjectKey | None) -> Read:
    """An event from its stored bytes; what was sealed stays None without its owner's key."""
    envelope, secret = opened(stored, key)
    event_type, newest = event_type_of(envelope.name)
    if envelope.event_version > newest:
        raise UnknownEvent(f"{envelope.name}.{envelope.event_version}")
    if envelope.event_version == newest and not bytes(secret.private):
        event = _data[event_type].decode(envelope.data)
    else:
        data = msgspec.json.decode(envelope.data)
        if bytes(secret.private):
            data["private"] = msgspec.json.decode(secret.private)
        event = msgspec.convert(upcast(envelope.name, envelope.event_version, data), event_type)
    at = Occurrence(
        stream=envelope.stream,
        version=envelope.version,
        merchant_id=envelope.merchant_id,
        occurred_at=envelope.occurred_at,
        recorded_at=envelope.recorded_at,
        actor=envelope.actor,
    )
    return Read(
        event=event,
        at=at,
        name=envelope.name,
        event_version=envelope.event_version,
        previous_hash=envelope.previous_hash,
        hash=hash_of(stored),
        origin=secret.origin,
    )
