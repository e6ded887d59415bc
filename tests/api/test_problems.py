"""Refusals as RFC 9457 has them: one table of codes, each with a page, and no code that is not in it."""

import ast
import html
from pathlib import Path

import httpx
import pytest

from api.problems import KINDS, STATUS_CODES
from tests.served import STANDARD, Client, Served, ServedShop, refusal

ROOT = Path(__file__).parents[2]
RAISED_BY_NAME = {"store_code_taken", "card_number_taken", "qr_code_taken"}
"""Made of the kind of a claim."""


def codes_in(source: str) -> set[str]:
    """The codes that a module refuses with: of every `Rejected`, and those handed on to where it is raised."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        texts = [each.value for each in node.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
        if name == "Rejected":
            found |= set(texts[:1])
        elif name == "need":
            found |= set(texts[-1:])
    return found


def facts_told() -> set[str]:
    """The names of the facts that the rules give with their refusals."""
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "ledger").rglob("*.py"))
    calls = (node for source in sources for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    refusals = (call for call in calls if getattr(call.func, "id", "") == "Rejected")
    return {keyword.arg for call in refusals for keyword in call.keywords if keyword.arg is not None}


def codes_raised() -> set[str]:
    paths = [path for package in ("ledger", "api", "projections") for path in (ROOT / package).rglob("*.py")]
    return {code for path in paths for code in codes_in(path.read_text(encoding="utf-8"))}


def test_every_code_that_is_raised_is_in_the_table() -> None:
    raised = codes_raised()
    assert len(raised) > 40
    assert raised - KINDS.keys() == set()


def test_no_fact_stands_in_the_place_of_what_every_problem_tells() -> None:
    named = facts_told()
    assert len(named) > 10
    assert named & STANDARD == set()


def test_every_code_in_the_table_can_be_raised() -> None:
    by_the_framework = set(STATUS_CODES.values()) | {"internal_error", "unavailable"}
    assert KINDS.keys() - codes_raised() - by_the_framework - RAISED_BY_NAME == set()


def test_codes_are_in_snake_case_with_a_title_and_a_meaning_of_their_own() -> None:
    for code, kind in KINDS.items():
        assert code.replace("_", "").isalpha()
        assert code == code.lower()
        assert 400 <= kind.status <= 599
        assert kind.title
        assert kind.meaning.endswith((".", "?"))
    titles = [kind.title for kind in KINDS.values()]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("code", KINDS)
def test_a_problems_type_leads_to_a_page_that_explains_it(served: Served, code: str) -> None:
    page = served.client().get(f"/problems/{code}")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert page.text.startswith("<!doctype html>")
    for said in (KINDS[code].title, KINDS[code].meaning, code, str(KINDS[code].status)):
        assert said in html.unescape(page.text)


def test_a_page_of_no_problem_is_not_found(served: Served) -> None:
    for code in ("nothing", "Unavailable", "..%2Funavailable", "<script>"):
        refusal(served.client().get(f"/problems/{code}"), 404, "not_found")


def some_refusals(shop: ServedShop) -> list[httpx.Response]:
    nobody = Client(shop.served.http)
    return [
        shop.till.get("cards/00000000-0000-0000-0000-000000000000"),
        shop.till.get("nothing"),
        shop.till.send("PUT", "program"),
        shop.till.command("stamp", {}),
        shop.till.command("stamp", {"unknown": 1}),
        shop.till.get("pins"),
        nobody.get("cards"),
        nobody.post("/api/v1/auth/token", {"email": "a@b.example", "password": "x"}),
        nobody.get("/nothing/at/all"),
    ]


def test_every_refusal_is_a_whole_problem_body(shop: ServedShop) -> None:
    for response in some_refusals(shop):
        body = response.json()
        kind = KINDS[body["code"]]
        refusal(response, kind.status, body["code"])
        assert body["title"] == kind.title
        page = httpx.get(body["type"], trust_env=False)
        assert (page.status_code, kind.title in html.unescape(page.text)) == (200, True)


def test_facts_stand_beside_the_standard_members(shop: ServedShop) -> None:
    card = shop.enrol()
    body = {"card_id": card["id"], "staff_pin": "1234", "reward_id": "coffee"}
    problem = shop.till.command("points/redeem", body).json()
    assert problem.keys() - STANDARD == {"points_balance", "points_cost", "points_missing"}


def test_who_is_not_signed_in_is_told_how(served: Served) -> None:
    response = served.client().get("cards")
    refusal(response, 401, "invalid_credentials")
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "path", ["/", "/api", "/api/v1/store/loyalty", "/api/v2/store/loyalty/cards", "/%00", "/a%ffb"]
)
def test_an_address_where_nothing_is_answers_a_problem(served: Served, path: str) -> None:
    refusal(served.client().get(path), 404, "not_found")


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "TRACE"])
def test_a_method_that_an_address_does_not_take_answers_a_problem(shop: ServedShop, method: str) -> None:
    refusal(shop.till.send(method, "points"), 405, "method_not_allowed")
