"""API servers killed under load, and two of them asked the same thing at once: nothing lost, nothing twice.

FAULT_CLIENTS and FAULT_ROUNDS make the first test as long as one likes.
"""

import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx
import pytest

from ledger.view import holder_of
from tests.installed import STORE, Installation, Up, installed, wait_until

pytestmark = pytest.mark.slow

CLIENTS = int(os.environ.get("FAULT_CLIENTS", "4"))
ROUNDS = int(os.environ.get("FAULT_ROUNDS", "3"))
HEALTHY_AGAIN_SECONDS = 5.0
AT_ONCE = 64
DAILY_STAMPS = 7
PINS_MAX = 5
EARNED_BY_KEY = "SELECT key, value FROM claims WHERE kind = 'idempotency' AND key LIKE 'terminal:%%'"


@dataclass
class Till:
    """A client that sends one purchase after the other, each until it is answered, with the same key."""

    up: Up
    card: str
    stop: threading.Event
    answered: dict[str, dict[str, Any]] = field(default_factory=dict)
    tries: int = 0
    replays: int = 0
    unexpected: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Works until it is told to stop, and ends what it began."""
        base_url, demo = self.up.base_url, self.up.demo
        headers = {"Authorization": f"Bearer {demo['terminal_key']}"}
        with httpx.Client(base_url=base_url, headers=headers, timeout=10, verify=False) as http:  # noqa: S501 plain HTTP
            while not self.stop.is_set() and not self.unexpected:
                cents = random.randrange(100_000)  # noqa: S311 any amount
                body = {"card_number": self.card, "purchase_amount_cents": cents, "staff_pin": "1234"}
                self._send_until_answered(http, str(uuid4()), body)

    def _send_until_answered(self, http: httpx.Client, key: str, body: dict[str, Any]) -> None:
        while not self.unexpected:
            self.tries += 1
            try:
                answer = http.post(f"{STORE}/points", json=body, headers={"Idempotency-Key": key})
            except httpx.TransportError:
                continue
            if answer.status_code == 200:
                self.answered[key] = answer.json()
                self.replays += "Idempotency-Replayed" in answer.headers
                return
            if answer.status_code != 503 or "Retry-After" not in answer.headers:
                self.unexpected.append(f"{answer.status_code} {answer.text}")


@contextlib.contextmanager
def working(tills: list[Till]) -> Iterator[None]:
    """Lets them all work while the block runs."""
    with ThreadPoolExecutor(len(tills)) as pool:
        work = [pool.submit(till.run) for till in tills]
        try:
            yield
        finally:
            tills[0].stop.set()
    for till in work:
        till.result()


def new_cards(up: Up, count: int) -> list[str]:
    enrolled = [up.ask("POST", f"{STORE}/cards/enroll", {}) for _ in range(count)]
    return [answer.json()["card_number"] for answer in enrolled]


def kill_and_wait(place: Installation, up: Up) -> float:
    """Kills the API process; answers how long it took until the next one answered."""
    (victim,) = place.api()
    os.kill(victim, signal.SIGKILL)
    began = time.monotonic()
    wait_until(up.is_ready, "it answered again")
    return time.monotonic() - began


def lookup(up: Up, card: str) -> dict[str, Any]:
    found: dict[str, Any] = up.ask("POST", f"{STORE}/cards/lookup", {"card_number": card}).json()
    return found


def test_a_server_killed_under_load_loses_nothing_and_doubles_nothing() -> None:
    with installed() as place, place.up("--demo") as up:
        # Fewer cards than clients: some contend for one card.
        cards = new_cards(up, max(1, CLIENTS - CLIENTS // 4))
        stop = threading.Event()
        tills = [Till(up, cards[number % len(cards)], stop) for number in range(CLIENTS)]
        outages = []
        with working(tills):
            for _ in range(ROUNDS):
                before = sum(len(till.answered) for till in tills)
                wait_until(lambda before=before: said(tills) > before + 5 * CLIENTS, "some were answered")  # type: ignore[misc]  # mypy does not infer a lambda's default
                time.sleep(random.random() / 5)  # noqa: S311 any moment will do
                outages.append(kill_and_wait(place, up))
        assert [problem for till in tills for problem in till.unexpected] == []
        answered = {key: answer for till in tills for key, answer in till.answered.items()}
        tries, replays = sum(till.tries for till in tills), sum(till.replays for till in tills)
        print(
            f"\n{CLIENTS} clients, {ROUNDS} kills: {len(answered)} commands acknowledged in {tries} tries,"
            f" {replays} of them by a replay; healthy again after {max(outages):.1f} s at the longest"
        )
        assert_the_log_agrees(place, up, answered, cards)
        assert max(outages) < HEALTHY_AGAIN_SECONDS


def said(tills: list[Till]) -> int:
    return sum(len(till.answered) for till in tills)


def assert_the_log_agrees(place: Installation, up: Up, answered: dict[str, dict[str, Any]], cards: list[str]) -> None:
    """Each answer is an event, each event one of the answers, and balances are their sums."""
    found = list(zip(place.events("points_earned"), place.data_of("points_earned"), strict=True))
    points = {f"{event.stream}-{event.version}": data["points"] for event, data in found}
    assert len(points) == len(found)
    told = {answer["transaction_id"]: answer["points_earned"] for answer in answered.values()}
    assert len(told) == len(answered), "two keys were given one transaction"
    assert told == points
    kept = {key.split(":", 2)[2]: holder_of(bytes(value)) for key, value in place.rows(EARNED_BY_KEY)}
    assert {key: f"{holder.stream}-{holder.version}" for key, holder in kept.items()} == {
        key: answer["transaction_id"] for key, answer in answered.items()
    }
    for card in cards:
        shown = lookup(up, card)
        earned = [of for event, of in points.items() if event.startswith(shown["id"])]
        assert shown["points_balance"] == sum(earned)


# ---- two servers, at once -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two() -> Iterator[tuple[Installation, list[Up]]]:
    """Two server processes on one log, each with a port of its own, and a program without a cooldown."""
    with installed() as place, place.up("--demo") as one, place.up(command="serve") as other:
        rules = {"cooldown_minutes": 0, "max_daily_stamps": DAILY_STAMPS}
        changed = one.ask("PATCH", f"{STORE}/program", rules, token=one.manager())
        assert changed.status_code == 200, changed.text
        yield place, [one, other]


def at_once(servers: list[Up], ask: Callable[[Up, int], httpx.Response]) -> list[httpx.Response]:
    """Asks 64 times at the same moment, by turns of one server and the other."""
    start = threading.Barrier(AT_ONCE)

    def one(number: int) -> httpx.Response:
        start.wait()
        return ask(servers[number % len(servers)], number)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(one, range(AT_ONCE)))


def statuses(answers: list[httpx.Response]) -> Counter[tuple[int, str]]:
    return Counter((answer.status_code, answer.json().get("code", "")) for answer in answers)


def test_of_many_stamps_at_once_exactly_the_days_are_given(two: tuple[Installation, list[Up]]) -> None:
    place, servers = two
    (card,) = new_cards(servers[0], 1)
    body = {"card_number": card, "staff_pin": "1234"}
    answers = at_once(servers, lambda up, _: up.ask("POST", f"{STORE}/stamp", body, key=str(uuid4())))
    assert Counter(answer.status_code for answer in answers) == {200: DAILY_STAMPS, 409: AT_ONCE - DAILY_STAMPS}
    given = sorted(answer.json()["stamp_count"] for answer in answers if answer.status_code == 200)
    assert given == list(range(1, DAILY_STAMPS + 1))
    assert [lookup(server, card)["stamp_count"] for server in servers] == [DAILY_STAMPS] * 2
    shown = lookup(servers[0], card)
    assert sum(str(event.stream) == shown["id"] for event in place.events("stamp_added")) == DAILY_STAMPS


def test_many_purchases_at_once_add_up(two: tuple[Installation, list[Up]]) -> None:
    _, servers = two
    (card,) = new_cards(servers[0], 1)
    answers = at_once(servers, lambda up, number: up.earn(10 * number, card_number=card))
    assert statuses(answers) == {(200, ""): AT_ONCE}
    assert {answer.json()["points_earned"] for answer in answers} == set(range(AT_ONCE))
    assert [lookup(server, card)["points_balance"] for server in servers] == [sum(range(AT_ONCE))] * 2


def test_one_command_many_times_at_once_is_one_event_and_one_answer(two: tuple[Installation, list[Up]]) -> None:
    place, servers = two
    (card,) = new_cards(servers[0], 1)
    key = str(uuid4())
    answers = at_once(servers, lambda up, _: up.earn(1_000, key=key, card_number=card))
    assert {status for status, _ in statuses(answers)} <= {200, 409}
    told = [answer for answer in answers if answer.status_code == 200]
    assert len({answer.content for answer in told}) == 1
    assert sum("Idempotency-Replayed" not in answer.headers for answer in told) == 1
    shown = lookup(servers[1], card)
    assert shown["points_balance"] == 100
    assert sum(str(event.stream) == shown["id"] for event in place.events("points_earned")) == 1


@pytest.mark.parametrize("named", [True, False], ids=["of a named member", "alone"])
def test_many_wrong_pins_at_once_lock_at_exactly_the_maximum(two: tuple[Installation, list[Up]], named: bool) -> None:
    place, servers = two
    demo = servers[0].demo
    (card,) = new_cards(servers[0], 1)
    staff = {"staff_id": demo["staff_id"]} if named else {}
    answers = at_once(
        servers, lambda up, number: up.earn(1_000, card_number=card, staff_pin=f"{number + 5_000}", **staff)
    )
    assert statuses(answers) == {(403, "pin_invalid"): PINS_MAX, (423, "pin_locked"): AT_ONCE - PINS_MAX}
    left = [answer.json()["attempts_left"] for answer in answers if answer.status_code == 403]
    assert sorted(left) == list(range(PINS_MAX))
    # Locked, the right PIN is answered like any other.
    assert [server.earn(1_000, card_number=card, **staff).status_code for server in servers] == [423, 423]
    failed = place.data_of("staff_pin_failed" if named else "terminal_pin_failed")
    assert [event["failed_attempts"] for event in failed] == list(range(1, PINS_MAX + 1))
    if named:
        (pin,) = servers[1].ask("GET", f"{STORE}/pins", token=servers[1].manager()).json()["items"]
        assert (pin["failed_attempts"], pin["locked_until"] is not None) == (PINS_MAX, True)
    assert lookup(servers[0], card)["points_balance"] == 0
