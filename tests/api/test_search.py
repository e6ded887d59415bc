"""Finding cards: by what is known of their customers, by status and store, in each order, page by page."""

from typing import Any

import pytest

from ledger.commands import OpenStore
from tests.served import ServedShop, answer_of, refusal

PEOPLE: list[dict[str, str]] = [
    {"customer_id": "C-100", "name": "Léa Weber", "email": "lea.weber@mail.example", "phone": "+352 621 123 456"},
    {"customer_id": "C-101", "name": "Jean-Paul Müller", "email": "JP@mail.example", "phone": "0049 170 7654321"},
    {"customer_id": "K-7", "name": "Anna Maria Anna", "email": "anna@web.example"},
    {"customer_id": "K-8", "name": "Annabel Lee"},
    {"customer_id": "K-9"},
    {"customer_id": "98-76", "name": "Łukasz Ångström-Møller"},
]


@pytest.fixture
def people(shop: ServedShop) -> ServedShop:
    """A shop whose customers told who they are."""
    for person in PEOPLE:
        assert shop.till.post("cards/enroll", person).status_code == 201
    return shop


def found(shop: ServedShop, text: str, **more: Any) -> list[str]:
    """Whom a manager finds."""
    response = shop.manager.get("cards", params={"q": text, **more})
    assert response.status_code == 200, response.text
    return [card["customer_id"] for card in answer_of(response)["items"]]


@pytest.mark.parametrize(
    ("text", "references"),
    [
        ("Léa", ["C-100"]),
        ("lea", ["C-100"]),
        ("WEBER", ["C-100"]),
        ("weber l", ["C-100"]),
        ("  lea   web ", ["C-100"]),
        ("lea.weber@", ["C-100"]),
        ("Muller", ["C-101"]),
        ("jp@mail.example", ["C-101"]),
        ("C-10", ["C-100", "C-101"]),
        ("k-", ["K-7", "K-8", "K-9"]),
        ("anna", ["K-7", "K-8"]),
        ("maria", ["K-7"]),
        ("352621123456", ["C-100"]),
        ("621123456", ["C-100"]),
        ("7654321", ["C-101"]),
        ("+352 621 123 456", ["C-100"]),
        ("621 123 456", ["C-100"]),
        ("weber léa", ["C-100"]),
        ("anna maria", ["K-7"]),
        ("maria anna", ["K-7"]),
        ("anna lee", ["K-8"]),
        ("anna weber", []),
        ("paul jean", ["C-101"]),
        ("jean-p", ["C-101"]),
        ("lukasz", ["98-76"]),
        ("moller", ["98-76"]),
        ("møller ł", ["98-76"]),
        ("angstrom-m", ["98-76"]),
        ("98-76", ["98-76"]),
        ("9876", ["98-76"]),
        ("nobody", []),
        ("eber", []),
        ("%", []),
        ("an_a", []),
    ],
)
def test_a_card_is_found_by_the_beginning_of_what_is_known(
    people: ServedShop, text: str, references: list[str]
) -> None:
    if len(text.strip()) < 2:
        refusal(people.manager.get("cards", params={"q": text}), 400, "invalid_search")
    else:
        assert sorted(found(people, text)) == references


def test_a_card_is_found_by_its_number(people: ServedShop) -> None:
    card = people.enrol("N-1")
    assert found(people, card["card_number"]) == ["N-1"]
    assert "N-1" in found(people, card["card_number"][:9])
    number = card["card_number"]
    assert found(people, f"{number[:4]} {number[4:8]} {number[8:]}") == ["N-1"]


def test_pages_of_a_search_hold_every_card_once(people: ServedShop) -> None:
    whole = found(people, "k-")
    pages, cursor = [], None
    while True:
        params = {"q": "k-", "limit": 1} | ({"cursor": cursor} if cursor else {})
        page = answer_of(people.manager.get("cards", params=params))
        pages += [card["customer_id"] for card in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert pages == whole == ["K-7", "K-8", "K-9"]


def test_a_name_that_begins_alike_twice_is_found_once(people: ServedShop) -> None:
    assert found(people, "anna") == ["K-7", "K-8"]
    first = answer_of(people.manager.get("cards?q=anna&limit=1"))
    second = answer_of(people.manager.get("cards", params={"q": "anna", "cursor": first["next_cursor"]}))
    assert [card["customer_id"] for card in first["items"] + second["items"]] == ["K-7", "K-8"]


def test_managers_see_who_it_is_and_tills_do_not(people: ServedShop) -> None:
    (card,) = answer_of(people.manager.get("cards?q=lea"))["items"]
    assert card["person"] == {
        "name": "Léa Weber",
        "email": "lea.weber@mail.example",
        "phone": "+352 621 123 456",
        "locale": None,
    }
    assert all(card["person"] is None for card in answer_of(people.till.get("cards"))["items"])


def test_a_till_finds_numbers_only(people: ServedShop) -> None:
    for text in ("lea", "lea.weber@mail.example", "C-100", "12345", "anna 123456"):
        facts = refusal(people.till.get("cards", params={"q": text}), 400, "invalid_search")
        assert facts == {"digits_min": 6}
    items = answer_of(people.till.get("cards", params={"q": "621 123 456"}))["items"]
    assert [card["customer_id"] for card in items] == ["C-100"]


def test_nobody_is_found_in_another_shop(people: ServedShop) -> None:
    other = people.served.shop()
    assert found(other, "lea") == []
    (card,) = answer_of(people.manager.get("cards?q=lea"))["items"]
    cursor = f"p{int(card['id'].replace('-', ''), 16)}"
    refusal(other.manager.get("cards", params={"q": "lea", "cursor": cursor}), 400, "invalid_cursor")


def test_a_search_that_would_find_everybody_is_refused(people: ServedShop) -> None:
    for text in ("", " ", "a", " a ", "\u0301a", "a b c"):
        assert refusal(people.manager.get("cards", params={"q": text}), 400, "invalid_search") == {"characters_min": 2}
    refusal(people.manager.get("cards?q=lea&sort=activity"), 400, "invalid_sort")


def test_texts_that_no_name_has_find_nobody(people: ServedShop) -> None:
    for text in ("x" * 100, "\U0010ffff\U0010ffff", "'; --", "\\\\", "aa%"):
        assert found(people, text) == []
    for text in ("x" * 101, "a\x00b", "a\nb"):
        refusal(people.manager.get("cards", params={"q": text}), 400, "invalid_request")
        refusal(people.manager.get("transactions", params={"order_reference": text}), 400, "invalid_request")


def test_cards_of_a_status_are_listed_alone(people: ServedShop) -> None:
    cards = answer_of(people.manager.get("cards"))["items"]
    for card in cards[:2]:
        assert people.manager.command(f"cards/{card['id']}/suspend", {}).status_code == 200
    suspended = answer_of(people.manager.get("cards?status=suspended"))["items"]
    assert [card["id"] for card in suspended] == [card["id"] for card in cards[:2]]
    assert len(answer_of(people.manager.get("cards?status=active"))["items"]) == 4
    refusal(people.manager.get("cards?status=lost"), 400, "invalid_request")


def test_cards_of_a_store_are_listed_alone(people: ServedShop) -> None:
    codes = [f"{people.shop.store_id.hex[-8:].upper()}{number}" for number in range(2)]
    for code in codes:
        opened = OpenStore(code=code, name="Side street", time_zone="Europe/Paris", currency="EUR", locale="fr")
        people.served.handle(opened, people.shop.merchant)
    response = people.manager.post("cards/enroll", {"customer_id": "P-1"}, headers={"Loyalty-Store": codes[0]})
    assert response.status_code == 201
    listed = answer_of(people.manager.get("cards", params={"store": codes[0]}))["items"]
    assert [card["customer_id"] for card in listed] == ["P-1"]
    assert answer_of(people.manager.get("cards", params={"store": codes[1]}))["items"] == []
    refusal(people.manager.get("cards?store=NOWHERE"), 404, "store_not_found")
    refusal(
        people.manager.get("cards", params={"store": people.served.shop().manager.get("program").json()["id"]}),
        404,
        "store_not_found",
    )


def test_cards_that_were_used_last_come_first_when_that_is_asked(people: ServedShop) -> None:
    cards = answer_of(people.manager.get("cards"))["items"]
    used = [cards[3], cards[1]]
    for card in used:
        people.earn(card, 100)
    wanted = [card["id"] for card in [cards[1], cards[3], cards[0], cards[2], cards[4], cards[5]]]
    listed, cursor = [], None
    while True:
        params = {"sort": "activity", "limit": 2} | ({"cursor": cursor} if cursor else {})
        page = answer_of(people.manager.get("cards", params=params))
        listed += [card["id"] for card in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert listed == wanted
    for file_format in ("csv", "jsonl"):
        refusal(people.manager.get(f"cards?sort=activity&format={file_format}"), 400, "invalid_sort")
    refusal(people.manager.get("cards?sort=activity&cursor=p5"), 400, "invalid_cursor")
    refusal(people.manager.get("cards?cursor=p5.6"), 400, "invalid_cursor")
