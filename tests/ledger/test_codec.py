"""The stored bytes of events: chained, the same for good, and without a word about anybody in the clear."""

import base64
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import msgspec
import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from ledger import card, customer
from ledger.actor import Actor, Occurrence, Role
from ledger.card import AddStamp, Card, EarnPoints, RedeemPoints, RedeemStamps
from ledger.commands import ChangePin, CreatePin, OnProgram, OpenAccount, RotateKey
from ledger.entropy import SystemEntropy
from ledger.entry import Result
from ledger.errors import Rejected
from ledger.handle import Ledger
from ledger.merchant import MerchantSettings
from ledger.program import ChangeProgram
from ledger.staff_pin import StaffRole
from ledger.store import names
from ledger.store.codec import Origin, Read, decode, encode, hash_of
from ledger.store.keys import Keyring, SealBroken, SubjectKey
from ledger.store.log import SNAPSHOT_EVERY_EVENTS
from ledger.store.names import CARD, CUSTOMER, STORED, UnknownEvent
from tests.running import MASTER_KEY, open_ledger, running
from tests.shop import NOON, Shop, open_shop

NAME = "Zoë Quackenbush"
EMAIL = "zoe.quackenbush@example.org"
PHONE = "+352 621 987 654"
CUSTOMER_ID = "crm-reference-8472-zq"
STAFF_NAME = "Bartholomew Oyelaran"
STAFF_PIN = "90817263"
NEXT_PIN = "71625384"
WRONG_PIN = "55667788"
ACCOUNT_EMAIL = "b.oyelaran@example.org"
PASSWORD = "correct horse battery staple"
ADDRESS = "203.0.113.201"
PROGRAM_OF_CALLER = "TillSoftware/7.4 (counter)"
SPOKEN = (
    NAME,
    EMAIL,
    PHONE,
    CUSTOMER_ID,
    STAFF_NAME,
    STAFF_PIN,
    NEXT_PIN,
    WRONG_PIN,
    ACCOUNT_EMAIL,
    PASSWORD,
    ADDRESS,
    PROGRAM_OF_CALLER,
)

PERSON = customer.Person(customer_id=CUSTOMER_ID, name=NAME, email=EMAIL, phone=PHONE, locale="de")
STREAM = uuid4()
AT = Occurrence(
    stream=STREAM,
    version=3,
    merchant_id=uuid4(),
    occurred_at=NOON,
    recorded_at=NOON.replace(microsecond=123_456),
    actor=Actor(role=Role.TERMINAL, id=uuid4(), store_id=uuid4(), staff_id=uuid4()),
)
ORIGIN = Origin(ip_address=ADDRESS, user_agent=PROGRAM_OF_CALLER)
STAMP = card.StampAdded(
    stamps=1,
    day=NOON.date(),
    stamps_today=2,
    reward_earned=False,
    program_version=4,
    stamp_count=7,
    points_balance=110,
)
PREVIOUS = "ab" * 32


def new_key() -> SubjectKey:
    return SubjectKey(SystemEntropy().token(32), SystemEntropy())


class SameNonce(SystemEntropy):
    """Chance that repeats itself, so that sealing the same again gives the same."""

    def __init__(self, nonce: bytes) -> None:
        self._nonce = nonce

    def token(self, size_bytes: int) -> bytes:
        return self._nonce[:size_bytes]


@dataclass
class Day:
    """What a shop's database holds after a day on which everything happened."""

    shop: Shop
    customer_card: Card
    terminal_secret: str
    rows: list[tuple[UUID, int, bytes, UUID | None]]
    wrapped: dict[UUID, bytes]

    def key_bytes(self, subject: UUID | None) -> bytes | None:
        """A person's key itself, unwrapped without the ledger's help."""
        if subject is None or subject not in self.wrapped:
            return None
        master = SubjectKey(MASTER_KEY, SystemEntropy())
        return master.open(self.wrapped[subject], subject.bytes)

    def key(self, subject: UUID | None) -> SubjectKey | None:
        key = self.key_bytes(subject)
        return SubjectKey(key, SystemEntropy()) if key else None

    def reads(self) -> Iterator[tuple[bytes, Read]]:
        for _, _, stored, subject in self.rows:
            yield stored, decode(stored, self.key(subject))


def everything(result: Result) -> bytes:
    """An answer that gives away all there is."""
    return msgspec.json.encode([result.main.state, [event for _, event in result.events], NAME, EMAIL, PHONE])


async def spend_a_day(ledger: Ledger, **settings: Any) -> tuple[Shop, Card, str]:
    """Makes every kind of event there is a command for, answers kept under keys."""
    shop = await open_shop(ledger, ledger.clock, settings=MerchantSettings(**settings), welcome_bonus_points=50)
    shop.till = msgspec.structs.replace(shop.till, ip_address=ADDRESS, user_agent=PROGRAM_OF_CALLER)
    shop.merchant = msgspec.structs.replace(shop.merchant, ip_address=ADDRESS, user_agent=PROGRAM_OF_CALLER)

    async def send(command: Any, key: str) -> Result:
        caller = shop.till if key.startswith("till") else shop.merchant
        handled = await ledger.handle(command, caller, key=key, answer=everything)
        assert handled.result is not None
        return handled.result

    pin = await send(CreatePin(name=STAFF_NAME, pin=STAFF_PIN, role=StaffRole.MANAGER), "pin")
    await send(ChangePin(staff_id=pin.main.stream, pin=NEXT_PIN), "change pin")
    await send(OpenAccount(email=ACCOUNT_EMAIL, password=PASSWORD, role=Role.MANAGER), "account")
    await send(OnProgram(ChangeProgram({"stamps_target": 1, "cooldown_minutes": 0})), "program")
    rotated = await send(RotateKey(shop.till.id), "rotate")
    assert rotated.secret is not None
    person = await shop.enrol(customer_id=CUSTOMER_ID, name=NAME, email=EMAIL, phone=PHONE, locale="de")
    await shop.enrol(customer_id=CUSTOMER_ID)
    for staff_id in (None, pin.main.stream):
        with pytest.raises(Rejected, match="pin_invalid"):
            await shop.ask(person, AddStamp(), pin=WRONG_PIN, staff_id=staff_id)
    for command in (AddStamp(), RedeemStamps(), EarnPoints(1_500, "order 77"), RedeemPoints("coffee")):
        await shop.ask(person, command, pin=NEXT_PIN, staff_id=pin.main.stream, answer=everything)
    return shop, person, rotated.secret


async def day(database_url: str, **settings: Any) -> Day:
    async with open_ledger(database_url) as ledger:
        shop, person, secret = await spend_a_day(ledger, **settings)
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            "SELECT originator_id, originator_version, state, subject_id FROM events ORDER BY notification_id"
        ).fetchall()
        wrapped = connection.execute("SELECT subject_id, wrapped FROM subject_keys").fetchall()
    return Day(shop, person, secret, rows, dict(wrapped))


# ---- chain --------------------------------------------------------------------------------------------------------


@running
async def test_each_event_carries_the_hash_of_the_bytes_before_it(database_url: str) -> None:
    told = await day(database_url)
    streams: dict[UUID, list[bytes]] = defaultdict(list)
    for stream, _, stored, _ in told.rows:
        streams[stream].append(stored)
    assert len(told.rows) > 15
    assert max(map(len, streams.values())) > 4
    for chain in streams.values():
        hashes = [hashlib.sha256(stored).hexdigest() for stored in chain]
        assert [json.loads(stored)["previous_hash"] for stored in chain] == ["0" * 64, *hashes[:-1]]


@running
async def test_an_event_names_its_own_place_and_kind(database_url: str) -> None:
    told = await day(database_url)
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            "SELECT originator_id, originator_version, merchant_id, topic, state FROM events"
        ).fetchall()
    for stream, version, merchant, topic, stored in rows:
        envelope = json.loads(stored)
        assert (envelope["stream"], envelope["version"]) == (str(stream), version)
        assert envelope["merchant_id"] == str(merchant) == str(told.shop.merchant.merchant_id)
        assert topic == f"{envelope['name']}.{envelope['event_version']}"


@running
async def test_what_is_read_is_stored_again_byte_for_byte(database_url: str) -> None:
    told = await day(database_url, log_ip_addresses=True)
    kinds = set()
    for _, _, stored, subject in told.rows:
        read = decode(stored, told.key(subject))
        sealed = json.loads(stored).get("sealed")
        key = None
        if sealed is not None:
            kept = told.key_bytes(subject)
            assert kept is not None
            key = SubjectKey(kept, SameNonce(base64.b64decode(sealed)))
        assert encode(read.event, read.at, read.previous_hash, key, read.origin)[1] == stored
        kinds.add(type(read.event))
    assert len(kinds) > 12


def test_every_kind_of_event_has_one_stored_name() -> None:
    assert len({name for name, _ in STORED.values()}) == len(STORED)
    assert names.TOPICS[card.StampAdded] == "stamp_added.1"


def test_a_changed_byte_breaks_the_chain() -> None:
    _, stored = encode(STAMP, AT, PREVIOUS, None, None)
    assert decode(stored, None).hash == hashlib.sha256(stored).hexdigest()
    assert decode(stored.replace(b'"stamp_count":7', b'"stamp_count":8'), None).hash != hash_of(stored)


# ---- personal data ------------------------------------------------------------------------------------------------


def enrolled() -> card.CardEnrolled:
    return card.CardEnrolled(
        customer=STREAM,
        card_number="123456789015",
        program_version=1,
        stamp_count=0,
        points_balance=0,
        private=card.CardHolder(CUSTOMER_ID, "5ec2e7"),
    )


def test_what_was_sealed_opens_with_its_owners_key() -> None:
    key = new_key()
    _, stored = encode(enrolled(), AT, PREVIOUS, key, ORIGIN)
    read = decode(stored, key)
    assert read.event == enrolled()
    assert (read.at, read.previous_hash, read.origin) == (AT, PREVIOUS, ORIGIN)


def test_what_was_sealed_opens_with_nobody_elses_key() -> None:
    _, stored = encode(enrolled(), AT, PREVIOUS, new_key(), None)
    with pytest.raises(SealBroken):
        decode(stored, new_key())


@pytest.mark.parametrize("elsewhere", [{"version": 4}, {"stream": str(uuid4())}])
def test_what_was_sealed_opens_nowhere_else(elsewhere: dict[str, Any]) -> None:
    key = new_key()
    _, stored = encode(enrolled(), AT, PREVIOUS, key, None)
    moved = json.dumps(json.loads(stored) | elsewhere).encode()
    assert decode(moved, None).event.card_number == "123456789015"
    with pytest.raises(SealBroken):
        decode(moved, key)


def test_sealing_the_same_twice_tells_nobody_that_it_was_the_same() -> None:
    key = new_key()
    sealed = {json.loads(encode(enrolled(), AT, PREVIOUS, key, None)[1])["sealed"] for _ in range(2)}
    assert len(sealed) == 2


def test_without_the_key_only_what_is_personal_is_missing() -> None:
    key = new_key()
    _, stored = encode(enrolled(), AT, PREVIOUS, key, ORIGIN)
    with_key, without = decode(stored, key), decode(stored, None)
    assert without.event == msgspec.structs.replace(enrolled(), private=None)
    assert without.origin is None
    assert msgspec.structs.replace(with_key, event=without.event, origin=None) == without


def test_personal_data_is_not_stored_without_a_key() -> None:
    with pytest.raises(ValueError, match="card_enrolled"):
        encode(enrolled(), AT, PREVIOUS, None, None)


def test_an_origin_is_not_stored_without_a_key() -> None:
    _, stored = encode(STAMP, AT, PREVIOUS, None, ORIGIN)
    assert "sealed" not in json.loads(stored)
    assert ADDRESS.encode() not in stored


@running
async def test_without_keys_every_event_still_decodes_and_hashes_the_same(database_url: str) -> None:
    told = await day(database_url, log_ip_addresses=True)
    sealed = 0
    for stored, with_key in told.reads():
        without = decode(stored, None)
        assert (without.hash, without.previous_hash, without.at) == (with_key.hash, with_key.previous_hash, with_key.at)
        if hasattr(with_key.event, "private"):
            sealed += 1
            assert with_key.event.private is not None
            assert without.event == msgspec.structs.replace(with_key.event, private=None)
        else:
            assert without.event == with_key.event
    assert sealed > 5


def whole_database(database_url: str) -> bytes:
    """Every byte of every row of every table."""
    content = bytearray()
    with psycopg.connect(database_url) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        for (table,) in tables:
            copy = SQL("COPY {} TO STDOUT (FORMAT binary)").format(Identifier(table))
            with connection.cursor().copy(copy) as rows:
                for block in rows:
                    content += block
    return bytes(content)


@running
async def test_nobody_is_found_in_any_table(database_url: str) -> None:
    async with open_ledger(database_url) as ledger:
        shop, person, secret = await spend_a_day(ledger, log_ip_addresses=True)
        for _ in range(SNAPSHOT_EVERY_EVENTS):
            await shop.ask(person, EarnPoints(100, None), pin=NEXT_PIN)
        registered = await ledger.log.load(CUSTOMER, person.customer)
        assert registered is not None
        assert registered.state.person == PERSON
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT stream_id FROM snapshots").fetchall() == [(person.id,)]
    content = whole_database(database_url).lower()
    assert person.card_number.encode() in content
    assert person.qr_code is not None
    unspoken = [*SPOKEN, person.qr_code, secret, secret.rsplit("_", 1)[1]]
    found = [text for text in unspoken if text.lower().encode() in content]
    assert found == []
    assert bytes.fromhex(person.qr_code) not in whole_database(database_url)


@running
async def test_an_address_is_kept_only_where_the_merchant_says_so(database_url: str) -> None:
    told = await day(database_url)
    assert [read.origin for _, read in told.reads() if read.origin is not None] == []


@running
async def test_an_address_that_is_kept_is_kept_with_what_the_till_did(database_url: str) -> None:
    told = await day(database_url, log_ip_addresses=True)
    by_kind = {type(read.event): read.origin for _, read in told.reads()}
    of_persons = {customer.CustomerRegistered, *CARD_EVENTS}
    assert {kind for kind, origin in by_kind.items() if origin == ORIGIN} >= of_persons
    assert {kind for kind, origin in by_kind.items() if origin not in (None, ORIGIN)} == set()


CARD_EVENTS = {
    card.CardEnrolled,
    card.WelcomeBonusGranted,
    card.StampAdded,
    card.StampsRedeemed,
    card.PointsEarned,
    card.PointsRedeemed,
}


@running
async def test_without_the_key_a_card_still_counts_and_says_nothing_of_its_holder(database_url: str) -> None:
    told = await day(database_url)
    with psycopg.connect(database_url) as connection:
        connection.execute("DELETE FROM subject_keys")
    async with open_ledger(database_url) as ledger:
        loaded = await ledger.log.load(CARD, told.customer_card.id)
        person = await ledger.log.load(CUSTOMER, told.customer_card.customer)
    assert loaded is not None
    assert (loaded.state.customer_id, loaded.state.qr_code) == (None, None)
    assert (loaded.state.stamp_count, loaded.state.points_balance) == (0, 50 + 150 - 100)
    assert person is not None
    assert person.state.person is None


# ---- keys ---------------------------------------------------------------------------------------------------------


def test_a_wrapped_key_opens_for_its_owner_and_under_its_master_key_only() -> None:
    owner, entropy = uuid4(), SystemEntropy()
    keyring = Keyring(MASTER_KEY, entropy)
    key, wrapped = keyring.create(owner)
    sealed = key.seal(b"secret", b"place")
    assert keyring.known(owner) is None
    assert Keyring(MASTER_KEY, entropy).unwrap(owner, wrapped).open(sealed, b"place") == b"secret"
    with pytest.raises(SealBroken):
        Keyring(MASTER_KEY, entropy).unwrap(uuid4(), wrapped)
    with pytest.raises(SealBroken):
        Keyring(b"n" * 32, entropy).unwrap(owner, wrapped)


def test_the_keys_used_last_are_the_ones_remembered() -> None:
    keyring = Keyring(MASTER_KEY, SystemEntropy(), remembered_max=2)
    first, second, third = uuid4(), uuid4(), uuid4()
    keyring.remember(first, new_key())
    keyring.remember(second, new_key())
    assert keyring.known(first) is not None
    keyring.remember(third, new_key())
    assert [keyring.known(subject) is not None for subject in (first, second, third)] == [True, False, True]
    keyring.forget(first)
    assert keyring.known(first) is None


# ---- versions -----------------------------------------------------------------------------------------------------


def stored_as(event_version: int, data: dict[str, Any], name: str = "stamp_added") -> bytes:
    envelope = json.loads(encode(STAMP, AT, PREVIOUS, None, None)[1])
    return json.dumps(envelope | {"name": name, "event_version": event_version, "data": data}).encode()


def old_stamp() -> dict[str, Any]:
    """A stamp of two shapes ago: without today's count, and with the balances inside."""
    data = msgspec.to_builtins(STAMP)
    del data["stamps_today"]
    data["balances"] = {"stamps": data.pop("stamp_count"), "points": data.pop("points_balance")}
    return dict(data)


def lift_balances(data: dict[str, Any]) -> dict[str, Any]:
    balances = data.pop("balances")
    return data | {"stamp_count": balances["stamps"], "points_balance": balances["points"]}


def lift_today(data: dict[str, Any]) -> dict[str, Any]:
    assert "stamp_count" in data
    return data | {"stamps_today": 2}


@pytest.fixture
def third_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stamps are in their third shape, and both older ones can be lifted."""
    monkeypatch.setitem(names.CURRENT, "stamp_added", (card.StampAdded, 3))
    monkeypatch.setitem(names.UPCASTERS, ("stamp_added", 1), lift_balances)
    monkeypatch.setitem(names.UPCASTERS, ("stamp_added", 2), lift_today)


@pytest.mark.usefixtures("third_shape")
@pytest.mark.parametrize(
    ("event_version", "data"), [(1, old_stamp()), (2, lift_balances(old_stamp())), (3, msgspec.to_builtins(STAMP))]
)
def test_an_old_shape_is_lifted_step_by_step(event_version: int, data: dict[str, Any]) -> None:
    stored = stored_as(event_version, data)
    read = decode(stored, None)
    assert read.event == STAMP
    assert (read.event_version, read.hash) == (event_version, hash_of(stored))


@pytest.mark.usefixtures("third_shape")
@running
async def test_a_stream_of_old_shapes_folds_as_one_of_new_ones(database_url: str) -> None:
    async with open_ledger(database_url) as ledger:
        shop = await open_shop(ledger, ledger.clock)
        person = await shop.enrol()
        await shop.ask(person, AddStamp())
    old = old_stamp() | {"balances": {"stamps": 7, "points": 110}}
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "UPDATE events SET state = %s WHERE originator_id = %s AND originator_version = 2",
            (stored_as(1, old), person.id),
        )
    async with open_ledger(database_url) as ledger:
        folded = await shop.on(ledger).card(person)
    assert (folded.stamp_count, folded.stamps_on(NOON.date())) == (7, 2)


def test_an_event_of_an_unknown_name_is_refused() -> None:
    with pytest.raises(UnknownEvent, match="card_framed"):
        decode(stored_as(1, {}, name="card_framed"), None)


def test_an_event_in_the_shape_of_a_newer_release_is_refused_and_not_misread() -> None:
    with pytest.raises(UnknownEvent, match="stamp_added"):
        decode(stored_as(2, msgspec.to_builtins(STAMP) | {"stamp_count": 700}), None)
