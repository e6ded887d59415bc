"""The OpenAPI document: as generated, valid, whole, and true of what the handlers share."""

import re
from collections import Counter
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from api.problems import KINDS
from tests.openapi import Operation, checked_in, generated, operations, resolved, text_of

ROLES = {"terminal", "manager", "admin", "auditor", "customer"}
NAME = re.compile(r"[a-z]+(_[a-z]+){1,3}")
STORE_SIDE = "/api/v1/store/loyalty"

each_operation = pytest.mark.parametrize(
    ("method", "path", "operation"),
    [pytest.param(*known, id=known[2]["operationId"]) for known in operations()],
)


def references(value: Any) -> list[str]:
    """Every reference anywhere in a document."""
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [found for inner in value.values() for found in references(inner)]
    return [found for inner in value for found in references(inner)] if isinstance(value, list) else []


def headers_of(operation: Operation, status: str) -> set[str]:
    return set(operation["responses"][status].get("headers", {}))


def sent_headers(operation: Operation) -> dict[str, bool]:
    """The request headers of an operation, and whether each is needed."""
    return {each["name"]: each["required"] for each in operation.get("parameters", ()) if each["in"] == "header"}


def test_the_document_checked_in_is_the_one_the_application_serves() -> None:
    assert text_of(generated()) == text_of(checked_in()), "run `python -m tests.openapi`"


def test_the_document_is_the_same_each_time_it_is_made() -> None:
    assert text_of(generated()) == text_of(generated())


def test_the_document_is_valid_openapi_3_1() -> None:
    assert checked_in()["openapi"].startswith("3.1.")
    assert [error.message for error in OpenAPIV31SpecValidator(checked_in()).iter_errors()] == []


def test_every_reference_leads_somewhere() -> None:
    found = set(references(checked_in()))
    assert found
    for reference in found:
        assert resolved({"$ref": reference})


def test_every_shape_is_used() -> None:
    used = {reference.rpartition("/")[2] for reference in references(checked_in())}
    assert set(checked_in()["components"]["schemas"]) - used == set()


def test_operations_have_short_names_of_their_own() -> None:
    names = Counter(operation["operationId"] for _, _, operation in operations())
    assert set(names.values()) == {1}
    assert [name for name in names if not NAME.fullmatch(name)] == []


@each_operation
def test_an_operation_says_what_it_does_and_who_may_call_it(method: str, path: str, operation: Operation) -> None:
    assert operation["summary"]
    assert operation["description"].endswith(".")
    assert operation["tags"]
    if operation["x-roles"] == ["anyone"]:
        assert operation["security"] == []
    else:
        assert operation["x-roles"]
        assert set(operation["x-roles"]) <= ROLES
        assert {"bearer": []} in operation["security"]
        for role in operation["x-roles"]:
            assert role in operation["description"]
    if path.startswith(STORE_SIDE):
        assert set(operation["x-roles"]) in ({"terminal", "manager"}, {"manager"}), method


@each_operation
def test_an_operation_documents_its_refusals_as_problems(method: str, path: str, operation: Operation) -> None:
    refusals = {status: resolved(said) for status, said in operation["responses"].items() if int(status) >= 400}
    for status, said in refusals.items():
        assert said["description"]
        if path != "/health/ready":
            schema = said["content"]["application/problem+json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/Problem"}, status
        if status == "503" and path != "/health/ready":
            assert "Retry-After" in said["headers"]
    if operation["security"]:
        assert {"400", "401", "403", "404", "503"} <= refusals.keys()
    if "requestBody" in operation:
        assert {"400", "408", "413"} <= refusals.keys()
    if "Idempotency-Key" in sent_headers(operation):
        assert {"409", "410", "422"} <= refusals.keys(), method


@each_operation
def test_an_operation_documents_its_headers(method: str, path: str, operation: Operation) -> None:
    sent = sent_headers(operation)
    good = [status for status in operation["responses"] if status.startswith("2")]
    if path.startswith(STORE_SIDE):
        assert sent["Loyalty-Store"] is False
        assert all("Loyalty-Position" in headers_of(operation, status) for status in good)
        if method == "GET":
            assert sent["Loyalty-Position"] is False
    if "Idempotency-Key" in sent:
        assert method != "GET"
        assert all("Idempotency-Replayed" in headers_of(operation, status) for status in good)
    if "201" in good:
        assert "Location" in headers_of(operation, "201")


def test_a_key_is_needed_where_a_balance_moves_and_taken_by_every_other_command() -> None:
    needed = {
        operation["operationId"] for _, _, operation in operations() if sent_headers(operation).get("Idempotency-Key")
    }
    at_the_till = {"add_stamp", "redeem_stamps", "earn_points", "redeem_points", "reverse_transaction"}
    assert needed == at_the_till | {"adjust_card", "merge_card"}
    previews = {"preview_points", "preview_reversal", "preview_expiry"}
    reading = {"look_up_card", "verify_pin", "sign_in"} | previews
    for method, _, operation in operations():
        taken = "Idempotency-Key" in sent_headers(operation)
        assert taken == (method != "GET" and operation["operationId"] not in reading), operation["operationId"]


def test_problems_list_every_code() -> None:
    assert checked_in()["components"]["schemas"]["Problem"]["properties"]["code"]["enum"] == sorted(KINDS)


def test_requests_take_no_unknown_fields_and_answers_are_whole() -> None:
    for name, schema in checked_in()["components"]["schemas"].items():
        if name.endswith(("Request", "Change")):
            assert schema["additionalProperties"] is False, name
        else:
            assert set(schema["required"]) == set(schema["properties"]), name


def test_patterns_are_in_the_dialect_of_json_schema() -> None:
    assert r"\Z" not in text_of(checked_in()).replace("\\\\", "\\")


def test_credentials_are_described() -> None:
    schemes = checked_in()["components"]["securitySchemes"]
    assert schemes["bearer"]["scheme"] == "bearer"
    assert (schemes["card_link"]["in"], schemes["card_link"]["name"]) == ("query", "link")
