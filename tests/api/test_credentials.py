"""Credentials: what signs in, what no longer does, and every way of forging a token that has been thought of."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from api.tokens import Identity, Tokens
from ledger.actor import PLATFORM, Caller, Role
from ledger.commands import OnTerminal, OpenAccount, OpenStore, RotateKey
from ledger.terminal import RevokeTerminal
from tests.served import OWN_CARD, PASSWORD, Client, Served, ServedShop, answer_of, refusal
from tests.shop import PIN

SIGN_IN = "/api/v1/auth/token"
SECRET = "t" * 32


# ---- terminal keys --------------------------------------------------------------------------------------------


def rotated(shop: ServedShop) -> str:
    """The till's next key."""
    handled = shop.served.handle(RotateKey(shop.shop.till.id), shop.shop.merchant)
    assert handled.result is not None
    assert handled.result.secret is not None
    return handled.result.secret


def works(client: Client) -> None:
    assert client.get("cards").status_code == 200
    assert client.post("cards/enroll", {}).status_code == 201


def works_no_more(client: Client) -> None:
    refusal(client.get("cards"), 401, "invalid_credentials")
    refusal(client.post("cards/enroll", {}), 401, "invalid_credentials")


def test_two_keys_live_while_a_till_changes_over_and_then_the_old_one_dies(shop: ServedShop) -> None:
    works(shop.till)
    second = shop.served.client(rotated(shop))
    works(shop.till)
    works(second)
    third = shop.served.client(rotated(shop))
    works_no_more(shop.till)
    works(second)
    works(third)


def test_a_revoked_till_is_out_at_once_even_for_what_it_sent_before(shop: ServedShop) -> None:
    card = shop.enrol()
    body = {"card_id": card["id"], "staff_pin": PIN, "purchase_amount_cents": 100}
    assert shop.till.post("points", body, key="k").status_code == 200
    shop.served.handle(OnTerminal(shop.shop.till.id, RevokeTerminal()), shop.shop.merchant)
    works_no_more(shop.till)
    refusal(shop.till.post("points", body, key="k"), 401, "invalid_credentials")


def test_a_key_is_good_on_every_server_and_dead_on_every_server(served_twice: tuple[Served, Served]) -> None:
    here, there = served_twice
    shop = here.shop()
    elsewhere = there.client(shop.shop.terminal_key)
    works(shop.till)
    works(elsewhere)
    here.handle(OnTerminal(shop.shop.till.id, RevokeTerminal()), shop.shop.merchant)
    works_no_more(elsewhere)
    works_no_more(shop.till)


def near_misses(key: str) -> list[str]:
    """Keys that are almost this one."""
    prefix, secret = key.rsplit("_", 1)
    other = "0" if secret[-1] != "0" else "1"
    return [
        key[:-1] + other,
        key[:-1],
        key + "0",
        key.upper(),
        f"lt_{uuid4().hex}_{secret}",
        f"{prefix}_{'0' * 48}",
        f"{prefix}_{hashlib.sha256(secret.encode()).hexdigest()[:48]}",
        f"lt_{secret}",
        prefix,
        f"{key}\u00e9",
    ]


def test_nothing_but_the_key_itself_is_the_key(shop: ServedShop) -> None:
    for credential in near_misses(shop.shop.terminal_key):
        header = {"Authorization": f"Bearer {credential}".encode("latin-1")}
        refusal(shop.served.client().get("cards", headers=header), 401, "invalid_credentials")


@pytest.mark.parametrize("header", ["", "Bearer", "Basic {key}", "{key}", "Token {key}", "Bearer {key} {key}"])
def test_the_key_comes_after_bearer(shop: ServedShop, header: str) -> None:
    sent = {"Authorization": header.format(key=shop.shop.terminal_key)}
    refusal(shop.served.client().get("cards", headers=sent), 401, "invalid_credentials")


def test_the_scheme_is_read_in_any_case(shop: ServedShop) -> None:
    for scheme in ("bearer", "BEARER", "Bearer"):
        sent = {"Authorization": f"{scheme} {shop.shop.terminal_key}"}
        assert shop.served.client().get("cards", headers=sent).status_code == 200


# ---- signing in -----------------------------------------------------------------------------------------------


def open_account(served: Served, role: Role, merchant_id: Any, password: str = PASSWORD) -> str:
    email = f"{uuid4().hex}@Shop.example"
    caller = Caller(role=Role.OPERATOR, id=uuid4(), merchant_id=merchant_id)
    served.handle(OpenAccount(email=email, password=password, role=role), caller)
    return email


def test_an_account_signs_in_with_its_password(shop: ServedShop) -> None:
    email = open_account(shop.served, Role.MANAGER, shop.merchant_id)
    response = shop.served.client().post(SIGN_IN, {"email": email, "password": PASSWORD})
    assert response.status_code == 200
    token = answer_of(response)
    assert token.keys() == {"access_token", "token_type", "expires_in"}
    assert (token["token_type"], token["expires_in"]) == ("Bearer", 3_600)
    works(shop.served.client(token["access_token"]))


def test_an_email_address_is_read_in_any_case(shop: ServedShop) -> None:
    email = open_account(shop.served, Role.MANAGER, shop.merchant_id)
    for written in (email.lower(), email.upper()):
        response = shop.served.client().post(SIGN_IN, {"email": written, "password": PASSWORD})
        assert response.status_code == 200


def test_a_long_password_counts_to_its_last_character(shop: ServedShop) -> None:
    password = "x" * 5_000
    email = open_account(shop.served, Role.MANAGER, shop.merchant_id, password)
    client = shop.served.client()
    assert client.post(SIGN_IN, {"email": email, "password": password}).status_code == 200
    refusal(client.post(SIGN_IN, {"email": email, "password": password[:-1] + "y"}), 401, "wrong_password")


def test_a_wrong_password_and_an_unknown_account_answer_the_same(shop: ServedShop) -> None:
    email = open_account(shop.served, Role.MANAGER, shop.merchant_id)
    client = shop.served.client()
    wrong = client.post(SIGN_IN, {"email": email, "password": "wrong"})
    unknown = client.post(SIGN_IN, {"email": f"{uuid4().hex}@shop.example", "password": PASSWORD})
    refusal(wrong, 401, "wrong_password")
    assert wrong.content == unknown.content
    assert email not in wrong.text


def test_a_manager_acts_in_the_store_that_is_named(shop: ServedShop) -> None:
    code = f"T{uuid4().hex[:12].upper()}"
    second = OpenStore(code=code, name="Side", time_zone="Asia/Tokyo", currency="EUR", locale="en")
    shop.served.handle(second, shop.shop.merchant)
    card = shop.enrol()
    body = {"card_id": card["id"], "purchase_amount_cents": 100}
    refusal(shop.manager.command("points", body), 400, "store_required")
    named = replace(shop.manager, store_code=code)
    assert named.command("points", body).status_code == 200
    newest = answer_of(shop.manager.get(f"cards/{card['id']}/transactions"))["items"][0]
    assert newest["store_code"] == code
    refusal(Client(shop.manager.http, shop.manager.credential, code.lower()).get("cards"), 404, "store_not_found")


# ---- the customer's own card ----------------------------------------------------------------------------------


def test_a_customer_sees_the_own_card_by_token_and_by_link(shop: ServedShop) -> None:
    card = shop.enrol("C-1")
    by_token = shop.customer("C-1").get(OWN_CARD)
    assert by_token.json() == card
    assert int(by_token.headers["loyalty-position"]) > 0
    by_link = shop.served.client().get(OWN_CARD, params={"link": shop.card_link("C-1")})
    assert by_link.json() == card
    again = shop.served.client().get(OWN_CARD, params={"link": shop.card_link("C-1")})
    assert again.json() == card


def test_a_customer_without_a_card_has_none(served: Served) -> None:
    shop, other = served.shop(), served.shop()
    other.enrol("C-1")
    refusal(shop.customer("C-1").get(OWN_CARD), 404, "card_not_found")
    refusal(served.client().get(OWN_CARD, params={"link": shop.card_link("C-1")}), 404, "card_not_found")


def test_a_card_link_is_no_bearer_token_and_a_token_is_no_card_link(shop: ServedShop) -> None:
    shop.enrol("C-1")
    refusal(shop.served.client(shop.card_link("C-1")).get(OWN_CARD), 401, "invalid_credentials")
    refusal(shop.served.client(shop.card_link("C-1")).get("cards"), 401, "invalid_credentials")
    token = shop.customer("C-1").credential
    refusal(shop.served.client().get(OWN_CARD, params={"link": token}), 401, "invalid_credentials")
    refusal(shop.served.client().get(OWN_CARD), 401, "invalid_credentials")
    for link in ("", "x", "a.b.c", "\x00", "é" * 300):
        refusal(shop.served.client().get(OWN_CARD, params={"link": link}), 401, "invalid_credentials")


# ---- forged tokens --------------------------------------------------------------------------------------------


def text(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def claims_of(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


def signed(claims: dict[str, Any], **header: Any) -> str:
    """A token with any header over the service's own secret."""
    parts = [text(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT", **header}, claims)]
    mac = hmac.digest(SECRET.encode(), ".".join(parts).encode(), "sha256")
    return ".".join([*parts, text(mac)])


def unsigned(claims: dict[str, Any], algorithm: str) -> str:
    return ".".join(
        [text(json.dumps({"alg": algorithm, "typ": "JWT"}).encode()), text(json.dumps(claims).encode()), ""]
    )


def rs256(claims: dict[str, Any]) -> str:
    return jwt.encode(claims, rsa.generate_private_key(65_537, 2_048), algorithm="RS256")


def confused(claims: dict[str, Any]) -> str:
    """HMAC over a public key's text, as if the verifier held it for RS256."""
    key = rsa.generate_private_key(65_537, 2_048).public_key()
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    parts = [text(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims)]
    return ".".join([*parts, text(hmac.digest(pem, ".".join(parts).encode(), "sha256"))])


def lacking(name: str) -> Callable[[dict[str, Any]], str]:
    return lambda claims: signed({claim: value for claim, value in claims.items() if claim != name})


def having(**changes: Any) -> Callable[[dict[str, Any]], str]:
    return lambda claims: signed(claims | changes)


def as_role(role: str) -> Callable[[dict[str, Any]], str]:
    return lambda claims: signed(claims | {"identity": claims["identity"] | {"role": role}})


FORGERIES: dict[str, Callable[[dict[str, Any]], str]] = {
    "alg none": lambda claims: unsigned(claims, "none"),
    "alg None": lambda claims: unsigned(claims, "None"),
    "alg NONE": lambda claims: unsigned(claims, "NONE"),
    "no signature": lambda claims: unsigned(claims, "HS256"),
    "another secret": lambda claims: jwt.encode(claims, "u" * 32, algorithm="HS256"),
    "no secret": lambda claims: jwt.encode(claims, "0" * 32, algorithm="HS256"),
    "HS384": lambda claims: jwt.encode(claims, "t" * 48, algorithm="HS384"),
    "HS512": lambda claims: jwt.encode(claims, "t" * 64, algorithm="HS512"),
    "RS256": rs256,
    "a public key as the secret": confused,
    "alg RS256 over HMAC": lambda claims: signed(claims, alg="RS256"),
    "an unknown critical header": lambda claims: signed(claims, crit=["x"], x=1),
    "expired": having(exp=1),
    "expired this second": having(exp=0),
    "exp as text": having(exp="never"),
    "exp null": having(exp=None),
    "exp without end": having(exp=float("inf")),
    "no exp": lacking("exp"),
    "no aud": lacking("aud"),
    "no iss": lacking("iss"),
    "no iat": lacking("iat"),
    "no sub": lacking("sub"),
    "no identity": lacking("identity"),
    "another audience": having(aud="card_link"),
    "no audience in the list": having(aud=[]),
    "another issuer": having(iss="somebody"),
    "identity as text": having(identity="manager"),
    "identity null": having(identity=None),
    "an unknown role": as_role("owner"),
    "an admin's role": as_role("admin"),
    "a terminal's role": as_role("terminal"),
    "an operator's role": as_role("operator"),
    "an account that is not": lambda claims: signed(
        claims | {"identity": claims["identity"] | {"account_id": str(uuid4())}}
    ),
    "garbage": lambda _: "garbage",
    "three garbages": lambda _: "a.b.c",
    "dots": lambda _: "..",
}


@pytest.mark.parametrize("forged", FORGERIES.values(), ids=FORGERIES)
def test_a_forged_token_is_none(shop: ServedShop, forged: Callable[[dict[str, Any]], str]) -> None:
    assert shop.manager.credential is not None
    claims = claims_of(shop.manager.credential)
    assert shop.served.client(signed(claims)).get("pins").status_code == 200
    forgery = shop.served.client(forged(claims))
    refusal(forgery.get("pins"), 401, "invalid_credentials")
    refusal(forgery.post("cards/enroll", {}), 401, "invalid_credentials")


def test_a_token_of_another_merchant_opens_that_merchant_only(served: Served) -> None:
    shop, other = served.shop(), served.shop()
    card = shop.enrol()
    refusal(other.manager.get(f"cards/{card['id']}"), 404, "card_not_found")


def test_a_managers_account_of_one_merchant_is_none_of_another(served: Served) -> None:
    shop, other = served.shop(), served.shop()
    assert shop.manager.credential is not None
    claims = claims_of(shop.manager.credential)
    moved = claims | {"identity": claims["identity"] | {"merchant_id": str(other.merchant_id)}}
    refusal(served.client(signed(moved)).get("cards"), 401, "invalid_credentials")


def test_a_token_is_good_for_its_time_and_no_longer(shop: ServedShop) -> None:
    assert shop.manager.credential is not None
    account_id = claims_of(shop.manager.credential)["identity"]["account_id"]
    identity = Identity(role=Role.MANAGER, merchant_id=shop.merchant_id, account_id=account_id)
    assert shop.served.client(shop.served.token(identity, minutes_ago=59)).get("pins").status_code == 200
    refusal(shop.served.client(shop.served.token(identity, minutes_ago=60)).get("pins"), 401, "invalid_credentials")


def test_tokens_of_another_installation_are_none(shop: ServedShop) -> None:
    other = Tokens("v" * 32, 60)
    assert shop.manager.credential is not None
    account_id = claims_of(shop.manager.credential)["identity"]["account_id"]
    identity = Identity(role=Role.MANAGER, merchant_id=shop.merchant_id, account_id=account_id)
    token = other.issue(identity, shop.served.parts.clock.now() - timedelta(minutes=1))
    refusal(shop.served.client(token).get("pins"), 401, "invalid_credentials")


def test_an_admins_token_is_of_no_merchant(served: Served) -> None:
    refusal(served.account(Role.ADMIN, PLATFORM).get("cards"), 403, "not_allowed")
