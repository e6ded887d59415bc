"""Under what a card is found, and who is not found any more."""

from uuid import uuid4

import psycopg

from projections.card_search import MODEL
from projections.rebuild import rebuild
from tests.projections.telling import KEYRING, shop_on, tables_of
from tests.running import running

TERMS = "SELECT DISTINCT customer FROM projections.search_terms"


@running
async def test_a_person_whose_key_is_gone_leaves_no_row_when_the_table_is_built_anew(database_url: str) -> None:
    async with shop_on(database_url) as shop:
        gone, stays = [await shop.enrol(customer_id=str(uuid4())) for _ in range(2)]
    with tables_of(database_url) as tables:
        await rebuild(database_url, KEYRING, [MODEL])
        assert {customer for (customer,) in tables.ask(TERMS)} == {gone.customer, stays.customer}
        with psycopg.connect(database_url) as connection:
            connection.execute("DELETE FROM subject_keys WHERE subject_id = %s", [gone.customer])
        await rebuild(database_url, KEYRING, [MODEL])
        assert tables.ask(TERMS) == [(stays.customer,)]
