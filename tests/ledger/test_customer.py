"""The person behind a card."""

from ledger import customer
from ledger.customer import Customer, CustomerRegistered, Person, RegisterCustomer
from tests.ledger.specification import MERCHANT_ID, STREAM, given

PERSON = Person(customer_id="C-1", name="Ada", email="ada@shop.test", phone="+352 123", locale="lb")


def test_a_person_becomes_a_customer() -> None:
    given(customer).when(RegisterCustomer(PERSON)).then(CustomerRegistered(PERSON))


def test_a_person_is_registered_once() -> None:
    given(customer, CustomerRegistered(PERSON)).when(RegisterCustomer(Person(customer_id="C-2"))).quiet()


def test_a_customer_is_what_they_told() -> None:
    assert given(customer, CustomerRegistered(PERSON)).state == Customer(
        id=STREAM, merchant_id=MERCHANT_ID, person=PERSON
    )


def test_of_an_erased_person_nothing_is_known() -> None:
    assert given(customer, CustomerRegistered(None)).state.person is None
